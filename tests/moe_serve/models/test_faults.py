"""A planted fault must change the tokens, or the exactness tests could not fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, MOE_FAMILIES
from quick import QUICK_FAMILIES, quick_among

from moe_serve.layers.context import GroupedCache

NUM_NEW_TOKENS = 48
LAYER = 1


class OneExpertZeroed:
    """A layer's experts whose expert 0 answers with zeros."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        self.inner = inner

    def __call__(self, rows_RD: torch.Tensor, counts_E: torch.Tensor) -> torch.Tensor:
        y_RD = self.inner(rows_RD, counts_E)
        y_RD[: int(counts_E[0])] = 0
        return y_RD


class LateByOne:
    """A rotary table that turns positions from 20 on by one too far; were all of them turned
    alike, nobody could see it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def at(self, position_T: torch.Tensor) -> Any:
        return self.inner.at(position_T + (position_T >= 20))


def with_feed_forward(model: Any, **changes: Any) -> Any:
    layers = list(model.layers)
    feed_forward = replace(layers[LAYER].feed_forward, **changes)
    layers[LAYER] = replace(layers[LAYER], feed_forward=feed_forward)
    return replace(model, layers=tuple(layers))


def zero_an_expert(decoder: Any) -> None:
    experts = decoder.model.layers[LAYER].feed_forward.experts
    decoder.model = with_feed_forward(decoder.model, experts=OneExpertZeroed(experts))


def overwrite_a_page(decoder: Any) -> None:
    """After the prompts are read, the page that was handed out first takes another's content."""
    first, other = decoder.free_pages[-1], decoder.free_pages[-3]

    def overwrite(step: int) -> None:
        if step == 8:
            cache = decoder.caches[LAYER]
            grouped = isinstance(cache, GroupedCache)
            for tensor in (cache.keys_PSHd, cache.values_PSHv) if grouped else (cache.latent_PSc,):
                tensor[first] = tensor[other]

    decoder.before_step = overwrite


def turn_too_far(decoder: Any) -> None:
    decoder.model = replace(decoder.model, rotary=LateByOne(decoder.model.rotary))


def drop_shared_experts(decoder: Any) -> None:
    decoder.model = with_feed_forward(decoder.model, shared=None)


def drop_correction_bias(decoder: Any) -> None:
    gate = decoder.model.layers[LAYER].feed_forward.gate
    gate = replace(gate, correction_E=torch.zeros_like(gate.correction_E))
    decoder.model = with_feed_forward(decoder.model, gate=gate)


WITH_SHARED_EXPERTS = ("deepseek_v3", "deepseek_v2", "deepseek_v2_group", "glm4_moe")
FAULTS: list[tuple[str, Callable[[Any], None]]] = [
    *[(family, zero_an_expert) for family in MOE_FAMILIES],
    *[(family, overwrite_a_page) for family in FAMILIES],
    *[(family, turn_too_far) for family in FAMILIES],
    *[(family, drop_shared_experts) for family in WITH_SHARED_EXPERTS],
    *[(family, drop_correction_bias) for family in ("deepseek_v3", "glm4_moe")],
]


@pytest.mark.parametrize(
    ("family", "plant"),
    quick_among(FAULTS, [case for case in FAULTS if case[0] in QUICK_FAMILIES]),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_fault_changes_the_tokens(
    family: str,
    plant: Callable[[Any], None],
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
    prompts: list[list[int]],
) -> None:
    path = checkpoint(family)
    # Pages are handed out sequence by sequence: the longest prompt comes first.
    ordered = sorted(prompts, key=len, reverse=True)
    right, faulty = make_decoder(path), make_decoder(path)
    plant(faulty)
    expected, _ = right.generate(ordered, NUM_NEW_TOKENS, chunk=1000)
    tokens, _ = faulty.generate(ordered, NUM_NEW_TOKENS, chunk=1000)
    assert tokens[0] != expected[0]
    if plant is overwrite_a_page:
        assert tokens[1:] == expected[1:]
