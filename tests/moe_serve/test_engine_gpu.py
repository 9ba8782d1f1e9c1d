"""The same exactness on one GPU, on the reference ops."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_runs import GREEDY, NEW_TOKENS, engine, prompts_of, tokens_of
from families import FAMILIES, VOCAB_SIZE

from moe_serve.types import SamplingParams

pytestmark = pytest.mark.gpu

Checkpoints = Callable[..., Path]
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_chunked_prefill_and_preemption(
    family: str, deterministic: bool, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family)
    expected, _ = reference(path, prompts_of(), NEW_TOKENS)
    with engine(
        path, device="cuda", num_pages=14, tokens_per_step=24, deterministic=deterministic
    ) as llm:
        assert tokens_of(llm.generate(prompts_of(), GREEDY)) == expected
        assert llm.stats().num_preemptions > 0


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe"])
def test_logprobs_of_the_whole_vocabulary(
    family: str, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family)
    _, logits = reference(path, prompts_of(), NEW_TOKENS)
    sampling = SamplingParams(
        temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=VOCAB_SIZE
    )
    with engine(path, device="cuda") as llm:
        completions = llm.generate(prompts_of(), sampling)
    for completion, expected in zip(completions, logits, strict=True):
        reported = torch.log_softmax(expected, -1)
        for step, pairs in enumerate(completion.top_logprobs):
            ids, values = zip(*pairs, strict=True)
            assert (torch.tensor(values) - reported[step, list(ids)]).abs().max() < 1e-4


def test_prefix_hits(checkpoint: Checkpoints, reference: Reference) -> None:
    path = checkpoint("deepseek_v3")
    (prompt,) = prompts_of([50], seed=1)
    expected, _ = reference(path, [prompt], NEW_TOKENS)
    with engine(path, device="cuda", prefix=True) as llm:
        for _ in range(2):
            assert tokens_of(llm.generate([prompt], GREEDY)) == expected
        assert llm.stats().num_cached_tokens == 48
