"""One launch of real ranks for each number of ranks, shared by all tests."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rank_jobs import PROMPTS, Ranks, greedy, job


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """ranks(n).run(job): on n ranks, launched at their first job."""
    launched: dict[int, Ranks] = {}

    def of(num_ranks: int) -> Ranks:
        if num_ranks not in launched:
            launched[num_ranks] = Ranks(num_ranks, tmp_path_factory.mktemp(f"ranks{num_ranks}"))
        return launched[num_ranks]

    yield of
    for each in launched.values():
        each.dismiss()
    for each in launched.values():
        each.close()


@pytest.fixture(scope="session")
def alone(
    ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path]
) -> Callable[[str, str], list[dict[str, Any]]]:
    """alone(family, dtype): the greedy answer to each of PROMPTS, with one rank to itself."""

    @cache
    def run(family: str, dtype: str) -> list[dict[str, Any]]:
        rounds = [[greedy(prompt)] for prompt in PROMPTS]
        answer = ranks(1).run(job(checkpoint(family), 1, rounds, dtype=dtype))
        return [single for (single,) in answer["rounds"]]

    return run
