"""Two engines that share their work, and what one alone gives."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_runs import engine
from kv_pair import Pair, pair

from moe_serve.types import Request


@pytest.fixture(scope="module")
def alone(checkpoint: Callable[..., Path]) -> Callable[..., list[list[int]]]:
    """What one engine gives each request by itself."""

    def run(family: str, asked: list[Request]) -> list[list[int]]:
        with engine(checkpoint(family), deterministic=True, page_size=8) as llm:
            answers = [llm.generate([each.prompt_ids], each.sampling)[0] for each in asked]
        return [list(answer.token_ids) for answer in answers]

    return run


@pytest.fixture
def latent(checkpoint: Callable[..., Path]) -> Iterator[Pair]:
    with pair(checkpoint("deepseek_v3"), tokens_per_step=24) as made:
        yield made
