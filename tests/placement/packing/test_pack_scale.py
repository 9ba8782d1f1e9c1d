"""A thousand slices on two hundred devices: in seconds, and near to what none can beat."""

from itertools import product
from time import process_time

import pytest
from moe_placement.packing.answer import Objective
from moe_placement.packing.pack import pack
from packing_cases import faults, fleet
from quick import quick_among

# Of the processor, which neighbours on the machine take less from than from the clock.
SECONDS = 10.0
CASES = list(product(("fewest", "even"), ("kinds", "distinct", "unlike"), range(3)))


@pytest.mark.parametrize(("objective", "kind", "seed"), quick_among(CASES, CASES[3:4]))
def test_a_thousand_slices_on_two_hundred_devices(
    objective: Objective, kind: str, seed: int
) -> None:
    items, devices = fleet(kind, 1000, 200, seed)
    began = process_time()
    found = pack(items, devices, objective=objective)
    seconds = process_time() - began
    print(
        f"{kind} {objective} {seed}: {seconds:.2f} s, gap {found.gap:.2%}, {found.opened} opened, "
        f"level {found.level:.4f}"
    )
    assert list(faults(found.device_of, items, devices)) == []
    assert found.unplaced == ()
    assert found.gap <= 0.03
    assert seconds < SECONDS


@pytest.mark.slow
def test_more_slices_than_there_is_room_for() -> None:
    items, devices = fleet("kinds", 1400, 200, 0)
    began = process_time()
    found = pack(items, devices)
    seconds = process_time() - began
    print(f"{seconds:.2f} s, {len(found.unplaced)} left out, at least {found.least_unplaced}")
    assert list(faults(found.device_of, items, devices)) == []
    assert found.least_unplaced > 0
    assert found.placed_gap <= 0.03
    assert seconds < SECONDS
