"""With deterministic ops a sequence's logits do not depend on what else is in the batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from quick import quick_among

NUM_NEW_TOKENS = 12

Decode = Callable[[list[list[int]], int, int], list[torch.Tensor]]


class NudgedRows:
    """An op whose result depends on the row: one unit in the last place, in the first one alone."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        self.inner = inner

    def __call__(self, *arguments: Any) -> torch.Tensor:
        result = self.inner(*arguments)
        above = torch.full_like(result[:1], torch.inf)
        result[:1] = torch.nextafter(result[:1], above)
        return result


def leave(decoder: Any) -> None:
    pass


def nudge(op: str) -> Callable[[Any], None]:
    def plant(decoder: Any) -> None:
        decoder.ops = replace(decoder.ops, **{op: NudgedRows(getattr(decoder.ops, op))})

    return plant


@pytest.fixture
def decode(checkpoint: Callable[..., Path], make_decoder: Callable[..., Any]) -> Callable[..., Any]:
    """decode(family, dtype, plant) -> a function of a batch, a chunk and a page size that gives
    the logits of each of its sequences."""

    def of(family: str, dtype: torch.dtype, plant: Callable[[Any], None] = leave) -> Decode:
        def run(batch: list[list[int]], chunk: int, page_size: int) -> list[torch.Tensor]:
            decoder = make_decoder(checkpoint(family), page_size, dtype, deterministic=True)
            plant(decoder)
            logits: list[torch.Tensor] = decoder.generate(batch, NUM_NEW_TOKENS, chunk)[1]
            return logits

        return run

    return of


def are_alike_alone(run: Decode, prompts: list[list[int]]) -> list[bool]:
    """For each prompt, whether its logits are bit-equal alone and together with the others."""
    together = run(prompts, 1000, 16)
    return [
        torch.equal(*run([prompt], 13, 8), expected)
        for prompt, expected in zip(prompts, together, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_logits_are_bit_equal_alone_and_in_a_batch(
    family: str, dtype: torch.dtype, decode: Callable[..., Decode], prompts: list[list[int]]
) -> None:
    assert all(are_alike_alone(decode(family, dtype), prompts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("family", "op"),
    [("deepseek_v3", "latent_attention"), ("qwen3_moe", "attention")],
)
def test_one_bit_that_depends_on_the_row_is_seen(
    family: str,
    op: str,
    dtype: torch.dtype,
    decode: Callable[..., Decode],
    prompts: list[list[int]],
) -> None:
    alike = are_alike_alone(decode(family, dtype, nudge(op)), prompts)
    # The first prompt has the first row, alone and together.
    assert not any(alike[1:])
