"""A fault in preemption or in a cached page must change the tokens, or the exactness tests of the
engine could not fail."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from engine_runs import GREEDY, NEW_TOKENS, engine, prompts_of, tokens_of
from families import FAMILIES
from quick import quick_among

from moe_serve.layers.context import GroupedCache, LayerCache
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.sequence import Sequence

Checkpoints = Callable[..., Path]
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]
PAGE_SIZE = 16
SHORT = replace(GREEDY, max_tokens=32)


class ForgettingScheduler(Scheduler):
    """Gives the newest token of a preempted sequence up for the one before it."""

    def _preempt_latest(self) -> None:
        super()._preempt_latest()
        preempted = next(iter(self._waiting.values()))
        if preempted.num_generated > 1:
            preempted.token_ids[-1] = preempted.token_ids[-2]


class SkippingScheduler(Scheduler):
    """Takes the first page of a sequence that was preempted for computed."""

    def _start(self, sequence: Sequence) -> None:
        if sequence.was_admitted and sequence.num_uncomputed > PAGE_SIZE:
            sequence.num_computed += PAGE_SIZE
        super()._start(sequence)


@pytest.mark.parametrize(
    ("fault", "family"),
    quick_among(
        product((ForgettingScheduler, SkippingScheduler), FAMILIES),
        [(ForgettingScheduler, "deepseek_v3"), (SkippingScheduler, "qwen3_moe")],
    ),
)
def test_a_faulty_preemption_changes_the_tokens(
    fault: type[Scheduler],
    family: str,
    device: str,
    checkpoint: Checkpoints,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = checkpoint(family)
    expected, _ = reference(path, prompts_of(), NEW_TOKENS)
    monkeypatch.setattr("moe_serve.load_rank.Scheduler", fault)
    with engine(path, device=device, num_pages=14, page_size=PAGE_SIZE, tokens_per_step=64) as llm:
        tokens = tokens_of(llm.generate(prompts_of(), GREEDY))
        assert llm.stats().num_preemptions > 0
    # The oldest sequence is never preempted, and has the pages of none who was.
    assert tokens[0] == expected[0] and tokens != expected


@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_overwriting_a_cached_page_changes_the_tokens(
    family: str, device: str, checkpoint: Checkpoints
) -> None:
    (prompt,) = prompts_of([46], seed=1)
    with engine(checkpoint(family), device=device, page_size=PAGE_SIZE, prefix=True) as llm:
        expected = tokens_of(llm.generate([prompt], SHORT))
        caches = [each for layer in llm._rank.engine._runner._caches for each in tensors_of(layer)]
        changed = 0
        for page in used_pages(caches[0]):
            kept = [cache_PS[page].clone() for cache_PS in caches]
            write(caches, page, [content.flip(-1) for content in kept])
            changed += tokens_of(llm.generate([prompt], SHORT)) != expected
            write(caches, page, kept)
        assert tokens_of(llm.generate([prompt], SHORT)) == expected
    # Each whole page of prompt and answer: equal blocks are shared as soon as they are computed.
    assert changed == (46 + SHORT.max_tokens) // PAGE_SIZE


def tensors_of(cache: LayerCache) -> tuple[torch.Tensor, ...]:
    """Keys and values, or the latent that is both; each of pages of slots."""
    if isinstance(cache, GroupedCache):
        return cache.keys_PSHd, cache.values_PSHv
    return (cache.latent_PSc,)


def used_pages(cache_PS: torch.Tensor) -> list[int]:
    pages: list[int] = cache_PS.flatten(1).abs().sum(1).nonzero()[:, 0].tolist()
    return pages


@torch.inference_mode()
def write(caches: list[torch.Tensor], page: int, contents: list[torch.Tensor]) -> None:
    for cache_PS, content in zip(caches, contents, strict=True):
        cache_PS[page] = content
