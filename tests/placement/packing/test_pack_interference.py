"""What is said of tenants beside one another: chances, speeds, and how busy a device gets."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_placement.packing.demand import chance_above
from moe_placement.packing.interference import device_use, tenant_speeds
from moe_placement.packing.occupancy import occupancy
from moe_placement.packing.slices import PackDevice, PackError, PackItem
from packing_cases import GB

GPU = PackDevice(name="gpu", memory=80 * GB, bandwidth=1000.0)
BURSTS = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from((0.1, 0.3, 0.75, 1.0))), max_size=7
)


@settings(max_examples=60, deadline=None)
@given(BURSTS, st.integers(0, 150))
def test_the_chance_is_that_of_all_outcomes(bursts: list[tuple[int, float]], room: int) -> None:
    chance = 0.0
    for busy in product((0, 1), repeat=len(bursts)):
        if sum(share for (share, _), on in zip(bursts, busy, strict=True) if on) > room:
            parts = [d if on else 1 - d for (_, d), on in zip(bursts, busy, strict=True)]
            chance += float(np.prod(parts))
    found = chance_above(room / 100, [(share / 100, duty) for share, duty in bursts])
    assert found == pytest.approx(chance, abs=1e-12)


def test_shares_between_the_grid_are_rounded_up() -> None:
    thirds = [(1 / 3, 0.5)] * 3
    assert chance_above(1.0, thirds) == pytest.approx(0.125)
    assert chance_above(1.001, thirds) == 0.0


def test_a_device_is_described_with_what_others_take() -> None:
    device = PackDevice(
        name="gpu",
        memory=80 * GB,
        bandwidth=1000.0,
        taken_compute=0.4,
        taken_memory=20 * GB,
        taken_bandwidth=300.0,
    )
    items = [
        PackItem(name="a", compute=0.5, memory=10 * GB, bandwidth=600.0, duty=0.5),
        PackItem(name="b", compute=0.2, memory=10 * GB, bandwidth_share=0.3, duty=0.5),
        PackItem(name="c", compute=0.1, hard=True, duty=0.1),
    ]
    use = device_use(device, items)
    assert use.slices == ("a", "b", "c")
    assert use.compute == pytest.approx(1.2)
    assert use.memory == pytest.approx(0.5)
    assert use.bandwidth == pytest.approx(1.2)
    assert use.busy == pytest.approx(0.4 + 0.35 + 0.01)
    assert use.busy_bandwidth == pytest.approx(0.3 + 0.45)
    assert use.compute_excess == pytest.approx(0.25), "the hard slice counts as always busy"
    assert use.bandwidth_excess == pytest.approx(0.25)
    assert use.contention == pytest.approx(1.2)
    assert use.num_undeclared == 1


def test_saturated_tenants_are_slower_by_one_over_their_share() -> None:
    items = [PackItem(name="a", compute=0.7, memory=1), PackItem(name="b", compute=0.3, memory=1)]
    fast, slow = tenant_speeds(GPU, items)
    assert (fast.saturated, slow.saturated) == pytest.approx((1 / 0.7, 1 / 0.3))
    assert (fast.expected, slow.expected) == pytest.approx((1 / 0.7, 1 / 0.3))
    (none,) = tenant_speeds(GPU, [PackItem(name="c")])
    assert (none.saturated, none.expected) == (None, None)


@pytest.mark.parametrize("hard", [False, True])
def test_idle_time_is_lent_in_proportion(hard: bool) -> None:
    """The mean over all outcomes of who is busy, of one over the part that the tenant then has."""
    shares, duties = (0.2, 0.3, 0.5), (0.4, 0.1, 0.7)
    items = [
        PackItem(name=f"t{n}", compute=share, duty=duty, hard=hard and n == 0)
        for n, (share, duty) in enumerate(zip(shares, duties, strict=True))
    ]
    mean = 0.0
    for second, third in product((0, 1), repeat=2):
        chance = (0.1 if second else 0.9) * (0.7 if third else 0.3)
        mean += chance * (0.2 + 0.3 * second + 0.5 * third) / 0.2
    found = tenant_speeds(GPU, items)[0]
    assert found.saturated == pytest.approx(5.0)
    assert found.expected == pytest.approx(5.0 if hard else mean)


def test_who_runs_at_once_has_its_own_processors_only() -> None:
    item = PackItem(name="a", compute=0.25, at_once=True)
    assert tenant_speeds(GPU, [item])[0].expected == pytest.approx(4.0)


@pytest.mark.parametrize(("num_tenants", "duty"), [(1, 0.3), (4, 0.3), (3, 0.7), (2, 1.0)])
def test_a_loop_is_as_busy_as_its_chain_says(num_tenants: int, duty: float) -> None:
    """The stationary distribution of how many want the device, by solving for it."""
    found = occupancy(num_tenants, duty)
    assert found.alone == pytest.approx(duty)
    if duty == 1:
        assert (found.closed, found.packed, found.wanted) == (1.0, 1.0, 1.0)
        return
    rates = np.zeros((num_tenants + 1, num_tenants + 1))
    for waiting in range(num_tenants):
        rates[waiting, waiting + 1] = (num_tenants - waiting) * duty / (1 - duty)
        rates[waiting + 1, waiting] = 1.0
    rates -= np.diag(rates.sum(1))
    balance = np.vstack([rates.T, np.ones(num_tenants + 1)])
    chances = np.linalg.lstsq(balance, np.array([0.0] * (num_tenants + 1) + [1.0]), rcond=None)[0]
    assert found.closed == pytest.approx(1 - chances[0])
    assert duty - 1e-9 <= found.closed <= found.packed + 1e-9


def test_packing_gains_at_most_one_over_the_duty() -> None:
    three, four = occupancy(3, 0.3), occupancy(4, 0.3)
    assert (three.packed, three.gain) == pytest.approx((0.9, 3.0))
    assert (four.packed, four.gain, four.ceiling) == pytest.approx((1.0, 1 / 0.3, 1 / 0.3))
    assert four.closed_gain == pytest.approx(2.896, abs=1e-3)
    assert four.wanted == pytest.approx(1 - 0.7**4)
    for number in range(1, 30):
        assert occupancy(number, 0.3).closed_gain <= four.ceiling


@pytest.mark.parametrize(("num_tenants", "duty"), [(0, 0.5), (2, 0.0), (2, 1.1)])
def test_no_occupancy_without_tenants_or_duty(num_tenants: int, duty: float) -> None:
    with pytest.raises(PackError, match="give at least 1 tenant"):
        occupancy(num_tenants, duty)
