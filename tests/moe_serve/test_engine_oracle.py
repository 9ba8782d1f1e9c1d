"""The whole engine on one rank against transformers, through every path of the scheduler."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from engine_runs import GREEDY, LENGTHS, NEW_TOKENS, engine, prompts_of, tokens_of
from families import FAMILIES, VOCAB_SIZE
from oracle import agrees_with, load_oracle
from quick import QUICK_FAMILIES, quick_among

from moe_serve.types import SamplingParams

Checkpoints = Callable[..., Path]
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]
EXACT = [(True, family) for family in QUICK_FAMILIES]


@pytest.mark.parametrize(
    ("deterministic", "family"),
    [*product([False], FAMILIES), *quick_among(product([True], FAMILIES), EXACT)],
)
def test_chunked_prefill_beside_decoding(
    family: str, deterministic: bool, device: str, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family)
    expected, _ = reference(path, prompts_of(), NEW_TOKENS)
    with engine(path, device=device, tokens_per_step=24, deterministic=deterministic) as llm:
        assert tokens_of(llm.generate(prompts_of(), GREEDY)) == expected
        assert llm.stats().num_steps > sum(LENGTHS) / 24
    assert all(len(set(tokens)) >= 20 for tokens in expected)


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe"])
def test_logprobs_of_the_whole_vocabulary_at_every_step(
    family: str, device: str, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family)
    _, logits = reference(path, prompts_of(), NEW_TOKENS)
    sampling = SamplingParams(
        temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=VOCAB_SIZE
    )
    with engine(path, device=device, tokens_per_step=50) as llm:
        completions = llm.generate(prompts_of(), sampling)
    for completion, expected in zip(completions, logits, strict=True):
        ours = torch.empty(NEW_TOKENS, VOCAB_SIZE)
        for step, pairs in enumerate(completion.top_logprobs):
            ids, values = zip(*pairs, strict=True)
            ours[step, list(ids)] = torch.tensor(values)
        assert (ours - torch.log_softmax(expected, -1)).abs().max() < 1e-4


@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_preemption_by_recompute(
    family: str, device: str, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family)
    expected, _ = reference(path, prompts_of(), NEW_TOKENS)
    with engine(path, device=device, num_pages=14, tokens_per_step=64) as llm:
        assert tokens_of(llm.generate(prompts_of(), GREEDY)) == expected
        assert llm.stats().num_preemptions > 0


@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_prefix_hits(family: str, device: str, checkpoint: Checkpoints) -> None:
    path = checkpoint(family)
    (shared,) = prompts_of([50], seed=1)
    prompts = [shared + tail for tail in prompts_of([1, 9, 30], seed=2)]
    with engine(path, device=device, prefix=True) as llm:
        (first, *later) = [tokens_of(llm.generate([prompt], GREEDY))[0] for prompt in prompts]
        assert llm.stats().num_cached_tokens == 2 * 48
        assert tokens_of(llm.generate(prompts, GREEDY)) == [first, *later]
    model = load_oracle(path)
    for prompt, tokens in zip(prompts, [first, *later], strict=True):
        assert len(tokens) == NEW_TOKENS and len(set(tokens)) >= 20
        assert agrees_with(model, prompt, tokens)


def test_the_pages_of_a_full_pool_are_all_free_again(device: str, checkpoint: Checkpoints) -> None:
    with engine(checkpoint("qwen3_moe"), device=device, num_pages=12, prefix=True) as llm:
        llm.generate(prompts_of() * 3, GREEDY)
        stats = llm.stats()
    assert stats.num_pages_used == 0 and stats.num_pages_cached <= 12
    assert stats.num_running == stats.num_waiting == 0
