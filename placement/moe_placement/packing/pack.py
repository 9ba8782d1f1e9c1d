"""Packs slices onto devices: all that can be, then on few devices or evenly.

Vector packing in three dimensions: compute, memory, memory bandwidth. Devices may be unlike, and
others may have taken some of each. The same arguments give the same packing on any machine, but for
a program that runs out of seconds on a slow one.
"""

from collections.abc import Sequence

from moe_placement.packing.answer import Found, Objective, Packing, packing_of
from moe_placement.packing.evenness import most_even
from moe_placement.packing.fewest import fewest_devices
from moe_placement.packing.layout import Layout
from moe_placement.packing.problem import problem_of
from moe_placement.packing.slices import PackDevice, PackError, PackItem, check


def pack(
    items: Sequence[PackItem],
    devices: Sequence[PackDevice],
    *,
    time_limit: float = 5.0,
    objective: Objective = "fewest",
    overcommit: float = 1.0,
    seed: int = 0,
) -> Packing:
    """Put every slice on a device, if that can be.

    Args:
        time_limit: seconds for each integer program; 0 does without them, and depends on nothing
            but the other arguments.
        objective: beyond placing as many as possible: "fewest" devices that would stay empty
            otherwise, or "even", the least use of the fullest device.
        overcommit: at 1 all shares are guaranteed; above 1, bursty slices that are not hard count
            that many times less, but never less than what they use in the mean. Memory is never
            overcommitted.

    Raises:
        PackError: slices or devices that cannot be right, or an overcommitment below 1.
    """
    check(items, devices)
    if not overcommit >= 1:
        raise PackError(f"overcommit is {overcommit:g}; it must be at least 1, which is none")
    problem = problem_of(items, devices, overcommit)
    if not items or not devices:
        found = Found(Layout.empty(problem), least_unplaced=len(items))
    elif objective == "even":
        found = most_even(problem, time_limit, seed)
    else:
        found = fewest_devices(problem, time_limit, seed)
    assert found.layout.is_sound
    return packing_of(found, items, devices, objective, overcommit)
