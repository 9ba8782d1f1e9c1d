"""Checkpoints and their reference output, made once per session."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

Tokens = Sequence[Sequence[int]]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where an engine's exactness is tested."""
    return str(request.param)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """checkpoint(family, **arguments of make_checkpoint) -> directory; read it, never write."""
    made: dict[str, Path] = {}

    def make(family: str, **arguments: Any) -> Path:
        from checkpoints import make_checkpoint

        key = repr((family, sorted(arguments.items())))
        if key not in made:
            made[key] = make_checkpoint(family, tmp_path_factory.mktemp(family), **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def reference() -> Callable[[Path, Tokens, int], tuple[list[list[int]], list[Any]]]:
    """`oracle.oracle`, remembered per checkpoint, prompts and length."""

    @cache
    def run(path: Path, prompts: tuple[tuple[int, ...], ...], num_new_tokens: int) -> Any:
        from oracle import oracle

        return oracle(path, prompts, num_new_tokens)

    def remember(path: Path, prompts: Tokens, num_new_tokens: int) -> Any:
        return run(path, tuple(tuple(prompt) for prompt in prompts), num_new_tokens)

    return remember
