"""With deterministic ops a sequence's logits do not depend on what else is in the batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES

NUM_NEW_TOKENS = 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_bit_equal_alone_and_in_a_batch(
    family: str,
    dtype: torch.dtype,
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
    prompts: list[list[int]],
) -> None:
    path = checkpoint(family)

    def decode(batch: list[list[int]], chunk: int, page_size: int) -> list[torch.Tensor]:
        decoder = make_decoder(path, page_size, dtype, deterministic=True)
        logits: list[torch.Tensor] = decoder.generate(batch, NUM_NEW_TOKENS, chunk)[1]
        return logits

    together = decode(prompts, 1000, 16)
    for prompt, expected in zip(prompts, together, strict=True):
        (alone,) = decode([prompt], 13, 8)
        assert torch.equal(alone, expected)
