"""The pool of page ids: what a cache could hold costs nothing, what it has held does."""

import sys
import time

import pytest

from moe_serve.schedule.pages import PagePool


def test_a_pool_costs_what_was_held_not_what_may_be() -> None:
    """Of pages of 4 KiB half a TiB has so many."""
    begun = time.perf_counter()
    pool = PagePool(1 << 27, 0)
    pool.add(3)
    assert time.perf_counter() - begun < 0.1
    kept = (pool._references, pool._free, pool._absent)
    assert sum(map(sys.getsizeof, kept)) < 1000
    assert (pool.num_held, pool.num_free, pool.references((1 << 27) - 1)) == (3, 3, 0)


def test_pages_that_were_held_are_held_again_before_others() -> None:
    pool = PagePool(6, 0)
    pool.add(4)
    taken = [pool.allocate() for _ in range(4)]
    assert taken == [0, 1, 2, 3]
    for page_id in (1, 2):
        pool.release(page_id)
    assert sorted(pool.remove(2)) == [1, 2]
    assert pool.num_held == 2
    pool.add(3)
    assert sorted(pool.allocate() for _ in range(3)) == [1, 2, 4]
    pool.add(1)
    with pytest.raises(AssertionError, match="1 pages asked, 0 are absent"):
        pool.add(1)
