"""Pages, the prefix tree and the page cache, each by example."""

from typing import Any

import pytest

from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.pages import PagePool
from moe_serve.schedule.prefix_tree import PrefixTree
from moe_serve.schedule.sequence import Phase, Sequence


def make_tree(num_pages: int) -> tuple[PagePool, PrefixTree]:
    pool = PagePool(num_pages)
    return pool, PrefixTree(pool)


def plant(pool: PagePool, tree: PrefixTree, tenant: int, *blocks: tuple[int, ...]) -> list[int]:
    """A chain of blocks that nobody uses any more."""
    node, page_ids = tree.root(tenant), [pool.allocate() for _ in blocks]
    for block, page_id in zip(blocks, page_ids, strict=True):
        node = tree.insert(node, block, page_id)
    for page_id in reversed(page_ids):
        tree.release(page_id)
    return page_ids


def test_pool_frees_a_page_with_its_last_reference() -> None:
    pool = PagePool(2)
    page_id = pool.allocate()
    pool.acquire(page_id)
    assert (pool.references(page_id), pool.num_free) == (2, 1)
    assert (pool.release(page_id), pool.num_free) == (1, 1)
    assert (pool.release(page_id), pool.num_free) == (0, 2)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(page_id)
    with pytest.raises(AssertionError, match="is free"):
        pool.acquire(page_id)


def test_pool_hands_out_each_page_once() -> None:
    pool = PagePool(5)
    assert sorted(pool.allocate() for _ in range(5)) == [0, 1, 2, 3, 4]


def test_match_is_the_longest_prefix_of_the_tenant() -> None:
    pool, tree = make_tree(8)
    page_ids = plant(pool, tree, 0, (1, 2), (3, 4), (5, 6))
    matched = tree.match(0, [(1, 2), (3, 4), (9, 9), (5, 6)])
    assert [node.page_id for node in matched] == page_ids[:2]
    assert tree.match(0, [(3, 4)]) == []
    assert tree.match(1, [(1, 2)]) == []


def test_insert_of_a_known_block_keeps_the_first_page() -> None:
    pool, tree = make_tree(4)
    (page_id,) = plant(pool, tree, 0, (1, 2))
    other = pool.allocate()
    assert tree.insert(tree.root(0), (1, 2), other).page_id == page_id
    assert pool.references(other) == 1


def test_eviction_takes_the_least_recently_used_leaf_first() -> None:
    pool, tree = make_tree(8)
    plant(pool, tree, 0, (1,), (2,))
    plant(pool, tree, 0, (7,))
    (first,) = tree.match(0, [(1,)])
    tree.acquire(first)
    tree.release(first.page_id)
    # Oldest is (1)(2), then (7); (1) was used last though it came first.
    left = []
    while tree.evict():
        left.append(
            [len(tree.match(0, blocks)) for blocks in ([(1,), (2,)], [(7,)])],
        )
    assert left == [[1, 1], [1, 0], [0, 0]]
    assert pool.num_free == 8


def test_a_page_in_use_is_not_evicted() -> None:
    pool, tree = make_tree(4)
    plant(pool, tree, 0, (1,), (2,))
    (first,) = tree.match(0, [(1,)])
    tree.acquire(first)
    assert tree.evict() and not tree.evict()
    assert tree.page_ids == {first.page_id}


def run_through(cache: PageCache, sequence: Sequence) -> tuple[int, ...]:
    """Place a sequence, compute all of it, and commit its pages."""
    cache.place(sequence, cache.match(sequence))
    sequence.phase, sequence.num_computed = Phase.RUNNING, len(sequence.token_ids)
    cache.commit(sequence)
    return sequence.page_ids


def test_second_sequence_shares_full_pages_short_of_its_last_token(make_request: Any) -> None:
    cache = PageCache(num_pages=8, page_size=2, prefix_caching=True)
    first = run_through(cache, Sequence(make_request("a", (1, 2, 3, 4))))
    follower = Sequence(make_request("b", (1, 2, 3, 4)))
    matched = cache.match(follower)
    assert [node.page_id for node in matched] == [first[0]]
    assert cache.num_wanted(follower, matched) == 1
    longer = Sequence(make_request("c", (1, 2, 3, 4, 5)))
    assert [node.page_id for node in cache.match(longer)] == list(first)


def test_a_block_computed_twice_is_held_once(make_request: Any) -> None:
    cache = PageCache(num_pages=8, page_size=2, prefix_caching=True)
    pair = [Sequence(make_request(name, (1, 2, 3, 4, 5))) for name in "ab"]
    for sequence in pair:
        cache.place(sequence, [])
    for sequence in pair:
        sequence.num_computed = 5
        cache.commit(sequence)
    assert pair[0].page_ids[:2] == pair[1].page_ids[:2]
    assert pair[0].page_ids[2] != pair[1].page_ids[2]
    assert cache.num_used == 4
    for sequence in pair:
        cache.release(sequence, Phase.ENDED)
    assert (cache.num_used, cache.num_cached, cache.pool.num_free) == (0, 2, 6)


def test_without_prefix_caching_nothing_is_kept(make_request: Any) -> None:
    cache = PageCache(num_pages=8, page_size=2, prefix_caching=False)
    sequence = Sequence(make_request("a", (1, 2, 3, 4)))
    run_through(cache, sequence)
    cache.release(sequence, Phase.ENDED)
    assert cache.pool.num_free == 8
    assert cache.match(Sequence(make_request("b", (1, 2, 3, 4)))) == []


def test_growth_takes_a_page_only_at_its_border_and_evicts_for_it(make_request: Any) -> None:
    cache = PageCache(num_pages=3, page_size=2, prefix_caching=True)
    ended = Sequence(make_request("a", (7, 8)))
    run_through(cache, ended)
    cache.release(ended, Phase.ENDED)
    sequence = Sequence(make_request("b", (1, 2, 3)))
    before = run_through(cache, sequence)
    sequence.token_ids.append(4)
    assert cache.grow(sequence) and sequence.page_ids is before
    sequence.token_ids.append(5)
    assert cache.grow(sequence) and len(sequence.page_ids) == 3
    assert cache.num_cached == 0
    sequence.token_ids.extend((6, 7))
    assert not cache.grow(sequence)
