"""Small encoders, made once per session, and requests to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_serve.types import Request, SamplingParams


@pytest.fixture(scope="session")
def encoder_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """encoder_checkpoint(family, head, **arguments) -> directory; read it, never write."""
    made: dict[str, Path] = {}

    def make(family: str = "Bert", head: str = "Model", **arguments: Any) -> Path:
        from encoder_checkpoints import make_encoder_checkpoint

        key = repr((family, head, sorted(arguments.items())))
        if key not in made:
            path = tmp_path_factory.mktemp(family + head)
            made[key] = make_encoder_checkpoint(path, family, head, **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Inputs of many lengths, the shortest 1 token, the longest all of the context."""
    generator = torch.Generator().manual_seed(1)
    lengths = (5, 48, 1, 17, 17, 30, 2, 9)
    return [torch.randint(4, 160, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="session")
def ask() -> Callable[..., Request]:
    """ask(name, token_ids, second_start=None) -> Request"""

    def make(name: str, token_ids: Sequence[int], second_start: int | None = None) -> Request:
        return Request(
            request_id=name,
            prompt_ids=tuple(token_ids),
            sampling=SamplingParams(),
            second_start=second_start,
        )

    return make
