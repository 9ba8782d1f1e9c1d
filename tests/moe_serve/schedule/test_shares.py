"""Shares of a device's time: who gets how much of which window, whatever the steps take."""

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.schedule.shares import Shares

STEP = 0.004
Seconds = Callable[[], float]


def shares_of(percents: Mapping[int, int], hard: tuple[int, ...] = ()) -> Shares:
    shares = Shares()
    for tenant, percent in percents.items():
        shares.open(tenant, percent / 100, is_hard=tenant in hard)
    return shares


def run(
    shares: Shares, seconds: float, steps: Mapping[int, Seconds], wanting: tuple[int, ...]
) -> list[tuple[int | None, float]]:
    """Who ran how long, turn after turn."""
    turns: list[tuple[int | None, float]] = []
    passed = 0.0
    while passed < seconds:
        shares.want(wanting)
        tenant = shares.pick()
        took = max(shares.seconds_to_wait(), 1e-4) if tenant is None else steps[tenant]()
        shares.charge(tenant, took)
        turns.append((tenant, took))
        passed += took
    return turns


def percents_by_window(
    turns: list[tuple[int | None, float]], window: float
) -> list[dict[int | None, float]]:
    """Of each window after the other; a turn that spans two counts in both."""
    windows: list[dict[int | None, float]] = [{}]
    room = window
    for tenant, took in turns:
        while took > 0:
            part = min(took, room)
            windows[-1][tenant] = windows[-1].get(tenant, 0.0) + 100 * part / window
            took, room = took - part, room - part
            if room < 1e-12:
                windows.append({})
                room = window
    return windows[:-1]


def uneven(seed: int, longest: float = STEP) -> Seconds:
    generator = random.Random(seed)
    return lambda: generator.uniform(0.25, 1.0) * longest


@pytest.mark.parametrize(
    "asked", [{0: 1, 1: 4, 2: 25, 3: 70}, {0: 30, 1: 70}, {0: 10, 1: 90}], ids=str
)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("window", "points"), [(1.0, 0.5), (0.2, 2.0)])
def test_saturated_tenants_get_what_they_asked_for(
    asked: dict[int, int], hard: bool, window: float, points: float
) -> None:
    shares = shares_of(asked, tuple(asked) if hard else ())
    turns = run(shares, 8.0, {each: uneven(each) for each in asked}, tuple(asked))
    for found in percents_by_window(turns, window):
        for tenant, percent in asked.items():
            assert abs(found.get(tenant, 0.0) - percent) <= points


@given(
    percents=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    longest=st.lists(st.floats(0.0005, 0.02), min_size=6, max_size=6),
    seed=st.integers(0, 999),
)
def test_the_error_is_about_one_step(percents: list[int], longest: list[float], seed: int) -> None:
    asked = dict(enumerate(percents))
    steps = {each: uneven(seed + each, longest[each]) for each in asked}
    turns = run(shares_of(asked), 4.0, steps, tuple(asked))
    passed = sum(took for _, took in turns)
    for tenant, percent in asked.items():
        got = sum(took for who, took in turns if who == tenant)
        assert abs(got - passed * percent / sum(percents)) <= 2 * max(longest[: len(asked)])


def test_idle_time_is_lent_in_proportion() -> None:
    asked = {0: 10, 1: 30, 2: 60}
    turns = run(shares_of(asked), 4.0, {each: uneven(each) for each in asked}, (0, 1))
    (first, *_) = percents_by_window(turns, 3.9)
    assert first[0] == pytest.approx(25, abs=0.3)
    assert first[1] == pytest.approx(75, abs=0.3)


def test_a_hard_share_is_not_exceeded_by_a_tenant_alone() -> None:
    turns = run(shares_of({0: 30, 1: 70}, hard=(0,)), 4.0, {0: uneven(0)}, (0,))
    for found in percents_by_window(turns, 1.0):
        assert found[0] == pytest.approx(30, abs=0.5)


def test_what_a_hard_tenant_may_not_have_others_get() -> None:
    asked = {0: 30, 1: 20}
    steps = {each: uneven(each) for each in asked}
    turns = run(shares_of(asked, hard=(0,)), 4.0, steps, (0, 1))
    for found in percents_by_window(turns, 1.0):
        assert found[0] == pytest.approx(30, abs=0.5)
        assert found[1] == pytest.approx(70, abs=0.5)


@pytest.mark.parametrize("hard", [False, True])
def test_who_was_idle_has_saved_nothing(hard: bool) -> None:
    shares = shares_of({0: 50, 1: 50}, hard=(0, 1) if hard else ())
    steps = {0: uneven(0), 1: uneven(1)}
    run(shares, 2.0, steps, (1,))
    (first, *_) = percents_by_window(run(shares, 0.3, steps, (0, 1)), 0.2)
    assert first[0] == pytest.approx(50, abs=2.0)


def test_coming_and_going_does_not_wipe_out_a_debt() -> None:
    shares = shares_of({0: 10, 1: 90})
    steps: dict[int, Seconds] = {0: lambda: 0.1, 1: lambda: 0.004}
    used = 0.0
    passed = 0.0
    for number in range(600):
        # Tenant 0 pauses after each of its steps, and comes again at once.
        wanting = (1,) if number % 3 == 0 else (0, 1)
        for tenant, took in run(shares, 0.001, steps, wanting):
            used += took if tenant == 0 else 0.0
            passed += took
    assert used / passed == pytest.approx(0.1, abs=0.06)


def test_a_hard_tenant_that_pauses_after_long_steps_gets_no_more_than_its_share() -> None:
    shares = shares_of({0: 1, 1: 99}, hard=(0,))
    used = 0.0
    for _ in range(60):
        turns = run(shares, 0.2, {0: lambda: 0.1, 1: lambda: STEP}, (0, 1))
        used += sum(took for tenant, took in turns if tenant == 0)
        run(shares, 1.01, {1: lambda: STEP}, (1,))
    assert used / (60 * 1.21) == pytest.approx(0.01, abs=0.0025)


def test_a_changed_share_holds_from_now_on() -> None:
    shares = shares_of({0: 30, 1: 70})
    steps = {0: uneven(0), 1: uneven(1)}
    run(shares, 1.0, steps, (0, 1))
    shares.change(0, 0.6)
    shares.change(1, 0.4)
    for found in percents_by_window(run(shares, 2.0, steps, (0, 1)), 1.0):
        assert found[0] == pytest.approx(60, abs=0.5)


def test_two_ranks_that_hear_the_same_choose_the_same() -> None:
    asked = {0: 3, 1: 17, 2: 80}
    runs = [
        run(shares_of(asked), 2.0, {each: uneven(each) for each in asked}, tuple(asked))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
