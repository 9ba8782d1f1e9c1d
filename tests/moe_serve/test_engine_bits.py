"""A deterministic engine gives a request the same bits whatever else it computes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import engine, prompts_of

from moe_serve.layers.context import ForwardContext
from moe_serve.llm import LLM, Completion
from moe_serve.types import SamplingParams

SAMPLING = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=5)
# The first one's keys lie in two tiles of the deterministic attention.
PROMPTS = prompts_of((150, 1, 17, 64))


class NudgedRows:
    """A model whose logits depend on the row: one unit in the last place, from the second on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, context: ForwardContext) -> torch.Tensor:
        logits_SV: torch.Tensor = self.inner(context)
        above = torch.full_like(logits_SV[1:], torch.inf)
        logits_SV[1:] = torch.nextafter(logits_SV[1:], above)
        return logits_SV


def nudge(llm: LLM) -> None:
    runner: Any = llm._rank.engine._runner
    runner._model = NudgedRows(runner._model)


def leave(llm: LLM) -> None:
    pass


def bits(completion: Completion) -> Any:
    exact = [(token, value.hex()) for step in completion.top_logprobs for token, value in step]
    return completion.token_ids, [value.hex() for value in completion.logprobs], exact


def alone_and_together(
    path: Path, device: str, dtype: str, change: Callable[[LLM], None]
) -> tuple[list[Any], list[Any]]:
    """Each prompt with one engine to itself, and all of them in small chunks, short of pages."""

    def run(rounds: Sequence[Sequence[list[int]]], **sizes: int) -> list[Any]:
        with engine(path, device=device, dtype=dtype, deterministic=True, **sizes) as llm:
            change(llm)
            answers = [bits(each) for asked in rounds for each in llm.generate(asked, SAMPLING)]
            assert (llm.stats().num_preemptions > 0) == (len(rounds) == 1)
        return answers

    alone = run([[prompt] for prompt in PROMPTS])
    return alone, run([PROMPTS], page_size=8, num_pages=24, tokens_per_step=29)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("deepseek_v3", "bfloat16"),
        ("qwen3_moe", "float32"),
        pytest.param("deepseek_v3", "float32", marks=pytest.mark.slow),
        pytest.param("qwen3_moe", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_alone_and_together(
    family: str, dtype: str, device: str, checkpoint: Callable[..., Path]
) -> None:
    alone, together = alone_and_together(checkpoint(family), device, dtype, leave)
    assert together == alone
    assert all(len(set(tokens)) > 15 for tokens, _, _ in alone)


def test_a_row_that_is_one_bit_off_is_seen(device: str, checkpoint: Callable[..., Path]) -> None:
    alone, together = alone_and_together(checkpoint("qwen3_moe"), device, "float32", nudge)
    assert [tokens for tokens, *_ in together] == [tokens for tokens, *_ in alone]
    assert together != alone
