"""Ranks that say what a test has them say."""

from collections.abc import Iterator

import pytest
from scripted_ranks import ScriptedRank


@pytest.fixture
def ranks() -> Iterator[list[ScriptedRank]]:
    """Two of them."""
    ranks = [ScriptedRank(number) for number in range(2)]
    yield ranks
    for rank in ranks:
        rank.link.close()
