"""What an engine refuses for good, and what it only puts off."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_runs import engine
from families import VOCAB_SIZE

from moe_serve.errors import RequestError
from moe_serve.types import SamplingParams


def test_ids_beyond_the_vocabulary_are_refused_and_nothing_stays_behind(
    checkpoint: Callable[..., Path],
) -> None:
    with engine(checkpoint("llama")) as llm:
        for prompt, sampling in (
            ([1, VOCAB_SIZE], SamplingParams()),
            ([-1], SamplingParams()),
            ([1], SamplingParams(stop_token_ids=(VOCAB_SIZE,))),
            ([1], SamplingParams(logit_bias=((VOCAB_SIZE, 1.0),))),
        ):
            with pytest.raises(RequestError, match=rf"is not in 0\.\.{VOCAB_SIZE - 1}"):
                llm.generate([[2, 3], prompt], sampling)
        stats = llm.stats()
        assert (stats.num_waiting, stats.num_running, stats.num_pages_used) == (0, 0, 0)
        assert len(llm.generate([[2, 3]])[0].token_ids) == 16


def test_more_prompts_than_the_queue_holds_are_fed_as_places_open(
    checkpoint: Callable[..., Path],
) -> None:
    limits = {"max_sequences": 3, "max_waiting": 2}
    with engine(checkpoint("llama"), limits=limits) as llm:
        prompts = [[number + 3, 7] for number in range(20)]
        together = llm.generate(prompts)
        assert [done.token_ids for done in together] == [
            llm.generate([prompt])[0].token_ids for prompt in prompts
        ]
