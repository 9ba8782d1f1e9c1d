"""Shares of a group's ranks: adjacent, even, and whole together."""

from itertools import pairwise

import pytest
from moe_comm.shard import ALONE, Shard


@pytest.mark.parametrize("total", [0, 1, 3, 8, 129280, 387])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_shares_are_adjacent_and_even(total: int, count: int) -> None:
    shares = [Shard(index, count).of(total) for index in range(count)]
    assert (shares[0].start, shares[-1].stop) == (0, total)
    assert all(one.stop == two.start for one, two in pairwise(shares))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert Shard(0, count).sizes(total) == sizes


def test_alone_has_all() -> None:
    assert ALONE.of(7) == slice(0, 7)
    assert ALONE.sizes(7) == [7]
