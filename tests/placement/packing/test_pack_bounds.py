"""Bounds and programs of packing, each against another way to the same figure."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_placement.packing.bound import bound_of, relaxed_bound
from moe_placement.packing.exact import ExactProgram
from moe_placement.packing.fewest import FewestSearch, cost
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.patterns import Patterns
from moe_placement.packing.pricing import Knapsack
from moe_placement.packing.problem import Problem, problem_of
from moe_placement.packing.seeds import Seeds
from moe_placement.packing.slices import PackDevice, PackItem
from packing_cases import GB, fleet

SMALL = st.integers(1, 9)


def halves(number: int, share: float) -> Problem:
    """More than half of memory is asked for by each slice, so no two are on one device."""
    items = [PackItem(name=f"s{n}", memory=int(share * 80) * GB) for n in range(number)]
    return problem_of(items, [PackDevice(name=f"d{n}", memory=80 * GB) for n in range(number)])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SMALL, SMALL, st.integers(0, 3), SMALL), min_size=1, max_size=4))
def test_the_dearest_pattern_is_that_of_all_patterns(kinds: list[tuple[int, ...]]) -> None:
    needs_TK = np.array([kind[:2] for kind in kinds])
    most_T, worth_T = np.array([kind[2:] for kind in kinds]).T
    free_K, apart_T = np.array([15, 12]), np.array([0, 0, -1, -1])[: len(kinds)]
    most_T = np.where(apart_T == 0, np.minimum(most_T, 1), most_T)
    every = (np.array(one) for one in product(*(range(most + 1) for most in most_T)))
    best = max(
        worth_T @ one
        for one in every
        if np.all(one @ needs_TK <= free_K) and one[apart_T == 0].sum() <= 1
    )
    pattern_T, worth = Knapsack(needs_TK, free_K, most_T, apart_T).dearest(worth_T.astype(float))
    assert worth == pytest.approx(best)
    assert worth_T @ pattern_T == best
    assert np.all(pattern_T @ needs_TK <= free_K)
    assert pattern_T[apart_T == 0].sum() <= 1


def test_dual_feasible_functions_see_what_sums_do_not() -> None:
    problem = halves(9, 0.55)
    assert np.ceil(problem.mean_need_KI[1].sum() / problem.total_KD[1, 0]) == 5
    assert relaxed_bound(Kinds.of(problem)).opened == 9


def test_a_cost_says_what_is_left_out_and_then_what_is_opened() -> None:
    assert bound_of(6.2, 10).opened == 7
    both = bound_of(3 * 10_000 + 6.2, 10)
    assert (both.unplaced, both.opened) == (3, 7)
    part = bound_of(2.5 * 10_000 + 1, 10)
    assert (part.unplaced, part.opened) == (3, 0)


def test_replicas_that_stay_apart_ask_for_as_many_devices() -> None:
    items = [PackItem(name=f"s{n}", memory=GB, apart="copies") for n in range(5)]
    devices = [PackDevice(name=f"d{n}", memory=80 * GB) for n in range(6)]
    assert relaxed_bound(Kinds.of(problem_of(items, devices))).opened == 5
    short = relaxed_bound(Kinds.of(problem_of(items, devices[:3])))
    assert (short.unplaced, short.opened) == (2, 3)


@pytest.mark.parametrize("seed", range(3))
def test_patterns_and_the_program_agree(seed: int) -> None:
    items, devices = fleet("kinds", 24, 8, seed)
    problem = problem_of(items, devices)
    kinds = Kinds.of(problem)
    found = ExactProgram(problem, kinds, 60.0).fewest()
    assert found is not None
    best = cost(found[0])
    patterns = Patterns(kinds, 60.0)
    patterns.improve()
    patterns.vary(np.random.default_rng(0))
    layout = patterns.layout(problem)
    assert layout is not None and layout.is_sound
    proven = bound_of(found[1].bound, len(devices))
    assert (proven.unplaced, proven.opened) == best
    assert relaxed_bound(kinds).opened <= patterns.bound.opened <= best[1]
    assert patterns.bound.unplaced == cost(layout)[0] == best[0] == 0
    assert cost(layout)[1] <= best[1] + 1


@pytest.mark.parametrize(("kind", "seed"), [("distinct", 0), ("distinct", 1), ("unlike", 2)])
def test_the_search_alone_finds_what_the_program_proves(kind: str, seed: int) -> None:
    items, devices = fleet(kind, 28, 9, seed)
    problem = problem_of(items, devices)
    found = ExactProgram(problem, Kinds.of(problem), 60.0).fewest()
    assert found is not None
    search = FewestSearch(Seeds(problem), time_limit=0)
    search.run()
    assert cost(search.best) == cost(found[0])
    assert (search.bound.unplaced, search.bound.opened) <= cost(found[0])


def test_slices_that_are_turned_out_find_another_place() -> None:
    """No greedy order fills three devices exactly; moving others about does."""
    thirds = [(50, 30), (30, 50), (20, 20)] * 3
    items = [
        PackItem(name=f"s{n}", compute=c / 100, memory=m * GB) for n, (c, m) in enumerate(thirds)
    ]
    items += [PackItem(name=f"t{n}", compute=0.0, memory=0) for n in range(2)]
    devices = [PackDevice(name=f"d{n}", memory=100 * GB) for n in range(4)]
    search = FewestSearch(Seeds(problem_of(items, devices)), time_limit=0)
    search.run()
    assert cost(search.best) == (0, 3)


def test_a_layout_knows_when_it_holds_too_much() -> None:
    problem = halves(2, 0.55)
    assert Layout.of(problem, np.array([0, 1])).is_sound
    assert Layout.of(problem, np.array([0, NOWHERE])).unplaced == [1]
    assert not Layout.of(problem, np.array([0, 0])).is_sound
