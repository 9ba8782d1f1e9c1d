"""Packing: nothing is held that does not fit, as much is placed as can be, and the same twice."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_placement.packing.answer import Objective, Packing
from moe_placement.packing.pack import pack
from moe_placement.packing.slices import PackDevice, PackError, PackItem
from packing_cases import GB, faults, fleet, level_of, optimum, problems

Problem = tuple[list[PackItem], list[PackDevice]]
OBJECTIVES = st.sampled_from(("fewest", "even"))
GPU = PackDevice(name="gpu", memory=80 * GB, bandwidth=3350e9)


def gpus(number: int, **figures: float) -> list[PackDevice]:
    return [replace(GPU, name=f"gpu:{n}", **figures) for n in range(number)]


def slices(number: int, **figures: object) -> list[PackItem]:
    return [PackItem(name=f"slice{n}", **figures) for n in range(number)]  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(problems(), OBJECTIVES, st.sampled_from((1.0, 1.5, 4.0)))
def test_a_small_packing_is_as_good_as_the_best_and_its_bounds_hold(
    problem: Problem, objective: Objective, overcommit: float
) -> None:
    items, devices = problem
    found = pack(items, devices, objective=objective, overcommit=overcommit, time_limit=60)
    best = optimum(items, devices, overcommit)
    assert list(faults(found.device_of, items, devices, overcommit)) == []
    assert found.device_of.keys() | {one.name for one in found.unplaced} == {
        item.name for item in items
    }
    assert found.least_unplaced <= best.unplaced == len(found.unplaced)
    level = level_of(found.device_of, items, devices, overcommit)
    assert found.level == pytest.approx(level, abs=1e-7)
    if objective == "fewest" and not found.unplaced:
        assert found.least_opened <= best.opened == found.opened
    if objective == "even" and not found.unplaced:
        assert found.least_level <= best.level + 1e-6
        assert found.level <= best.level * 1.002 + 1e-6


@settings(max_examples=10, deadline=None)
@given(problems(max_items=14, max_devices=5), OBJECTIVES)
def test_without_programs_it_fits_all_the_same_and_the_same_comes_twice(
    problem: Problem, objective: Objective
) -> None:
    items, devices = problem
    first, second = (pack(items, devices, objective=objective, time_limit=0) for _ in range(2))
    assert first == second
    assert list(faults(first.device_of, items, devices)) == []
    assert len(first.unplaced) >= first.least_unplaced
    assert first.opened >= first.least_opened
    assert first.level >= first.least_level


@pytest.mark.parametrize("kind", ["kinds", "distinct", "unlike"])
def test_what_is_bounded_is_nearly_reached(kind: str) -> None:
    objective: Objective
    items, devices = fleet(kind, 120, 40, seed=1)
    for objective, most in (("fewest", 0.03), ("even", 0.05)):
        found = pack(items, devices, objective=objective)
        assert list(faults(found.device_of, items, devices)) == []
        assert found.unplaced == ()
        assert found.gap <= most


def test_no_slices_and_no_devices() -> None:
    empty = pack([], gpus(2))
    assert (empty.device_of, empty.unplaced, empty.opened, empty.gap) == ({}, (), 0, 0.0)
    nowhere = pack(slices(2, compute=0.1), [])
    assert (nowhere.device_of, nowhere.least_unplaced) == ({}, 2)
    assert [str(one) for one in nowhere.unplaced] == [
        f"slice{n}: there is no device that it may be on; allow one" for n in range(2)
    ]
    assert pack([], []).is_best


def test_what_no_device_can_hold_is_named_with_both_figures_and_hinders_no_other() -> None:
    items = [PackItem(name="large", compute=0.2, memory=90 * 2**30), *slices(4, compute=0.5)]
    small = [replace(GPU, name=f"gpu:{n}", memory=80 * 2**30) for n in range(3)]
    devices = [*small, replace(small[0], name="host", memory=8 * 2**30)]
    found = pack(items, devices)
    (one,) = found.unplaced
    assert (one.name, one.is_too_large, found.least_unplaced) == ("large", True, 1)
    assert str(one) == (
        "large: too large for any device, even gpu:0 without slices: memory 90.0 GiB is asked for, "
        "80.0 GiB is left (10.0 GiB short)"
    )
    assert (found.opened, found.least_opened) == (2, 2)


@pytest.mark.parametrize("dimension", ["compute", "bandwidth", "bandwidth_share"])
def test_shares_beyond_all_numbers_are_too_large_like_others(dimension: str) -> None:
    """Shares are counted in whole 64-bit numbers."""
    found = pack([PackItem(name="endless", **{dimension: 1e40}), *slices(1)], gpus(2))
    (one,) = found.unplaced
    assert one.is_too_large and "100% is left" in str(one)


def test_what_is_short_is_told_of_the_device_that_comes_nearest() -> None:
    devices = gpus(2, memory=80 * 2**30)
    items = [
        *slices(2, compute=0.7, memory=30 * 2**30),
        PackItem(name="late", compute=0.35, memory=20 * 2**30, allowed=("gpu:1",)),
    ]
    (one,) = pack(items[::-1], devices, time_limit=0).unplaced
    if one.name == "late":
        assert (one.device, one.is_too_large) == ("gpu:1", False)
    assert "compute" in str(one) and "comes nearest" in str(one)


def test_slices_that_stay_apart_do() -> None:
    found = pack(slices(4, compute=0.1, apart="replicas"), gpus(3))
    assert len(set(found.device_of.values())) == len(found.device_of) == 3
    assert found.least_unplaced == 1
    (one,) = found.unplaced
    assert str(one).endswith("holds another that it must be apart from; add a device")


def test_devices_in_use_are_filled_before_another_is_opened() -> None:
    used = replace(GPU, name="used", taken_compute=0.6, taken_memory=40 * GB)
    items = slices(6, compute=0.2, memory=10 * GB)
    found = pack(items, [*gpus(2), used])
    held = {device.name: len(device.slices) for device in found.devices}
    assert held["used"] == 2
    assert (found.opened, found.least_opened, found.is_best) == (1, 1, True)


def test_equal_parts_of_a_device_fill_it_exactly() -> None:
    for parts in (3, 6, 7, 11):
        found = pack(slices(parts, compute=1 / parts, memory=80 * GB // parts), gpus(2))
        assert found.opened == 1, parts
        assert found.devices[0].compute == pytest.approx(1.0)


def test_one_byte_too_much_is_too_much() -> None:
    halves = slices(2, memory=40 * GB)
    assert pack(halves, gpus(1)).unplaced == ()
    more = [halves[0], replace(halves[1], memory=40 * GB + 1)]
    assert len(pack(more, gpus(1)).unplaced) == 1


def test_hard_and_busy_slices_are_never_overcommitted() -> None:
    for figures in ({"hard": True, "duty": 0.1}, {"duty": 1.0}):
        found = pack(slices(5, compute=0.25, **figures), gpus(1), overcommit=8.0)
        assert len(found.device_of) == 4, figures
        assert found.devices[0].compute_excess == 0.0


def test_bursty_slices_are_overcommitted_only_where_it_is_asked_for() -> None:
    items = slices(9, compute=0.25, duty=0.3, memory=GB)
    careful = pack(items, gpus(1))
    assert (len(careful.device_of), careful.devices[0].compute_excess) == (4, 0.0)
    bold = pack(items, gpus(1), overcommit=2.0)
    (device,) = bold.devices
    assert (len(bold.device_of), bold.least_unplaced) == (8, 1)
    assert device.compute == pytest.approx(2.0)
    assert device.busy == pytest.approx(0.6)
    assert device.compute_excess == pytest.approx(0.0580, abs=1e-4)
    most = pack(slices(20, compute=0.25, duty=0.3), gpus(1), overcommit=100.0)
    assert len(most.device_of) == 13, "the mean demand is never above the device"


@pytest.mark.parametrize(
    ("items", "devices", "said"),
    [
        (slices(1) * 2, gpus(1), "2 slices are named 'slice0'; give each its own name"),
        (slices(1), [GPU, GPU], "2 devices are named 'gpu'"),
        (slices(1, compute=-0.1), gpus(1), "'slice0' has compute -0.1; it must be at least 0"),
        (slices(1, memory=-1), gpus(1), "'slice0' has memory -1"),
        (slices(1, memory=1 << 63), gpus(1), f"'slice0' has memory {1 << 63}; it must be at most"),
        (slices(1, bandwidth=float("nan")), gpus(1), "'slice0' has bandwidth nan"),
        (slices(1, duty=0), gpus(1), "'slice0' has duty 0; it is a share of time, above 0"),
        (slices(1, duty=1.5), gpus(1), "'slice0' has duty 1.5"),
        (slices(1, allowed=("tpu",)), gpus(1), "'slice0' may be on 'tpu', which is no device"),
        (slices(1, memory=1 << 63), gpus(1), "has memory 9223372036854775808; it must be at most"),
        (slices(1), gpus(1, taken_compute=1.5), "'gpu:0' has compute 1, and 1.5 of it are taken"),
        (slices(1), gpus(1, taken_memory=81 * GB), "has memory 8e+10, and 8.1e+10 of it are taken"),
    ],
)
def test_wrong_figures_are_refused(
    items: list[PackItem], devices: list[PackDevice], said: str
) -> None:
    with pytest.raises(PackError) as caught:
        pack(items, devices)
    assert said in str(caught.value)


def test_an_overcommitment_below_one_is_refused() -> None:
    with pytest.raises(PackError, match=r"overcommit is 0\.5; it must be at least 1"):
        pack([], [], overcommit=0.5)


def test_the_gap_is_of_what_was_asked_for() -> None:
    items, devices = fleet("distinct", 30, 8, seed=0)
    fewest: Packing = pack(items, devices)
    assert fewest.gap == pytest.approx(fewest.opened / fewest.least_opened - 1)
    even = pack(items, devices, objective="even", time_limit=0)
    assert even.gap == pytest.approx(even.level / even.least_level - 1)
