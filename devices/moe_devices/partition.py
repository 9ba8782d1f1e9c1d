"""Parts of one device's processors, each for one tenant's work."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from moe_devices.errors import DeviceError


class Partition(Protocol):
    """A share of a device's processors.

    Work of other parts of the same split does not run on them; on an NPU they are a number that
    this part's work uses at most.
    """

    @property
    def name(self) -> str:
        """Which processors, for logs."""
        ...

    def use(self) -> AbstractContextManager[None]:
        """What this thread computes within the context runs here; other threads are not touched."""
        ...

    def close(self) -> None:
        """Give the processors back; nobody may be within `use` any more."""
        ...


def units_by_percent(percents: Sequence[int], num_units: int, unit: str) -> list[int]:
    """Whole units for each percentage: what it amounts to, rounded by the largest remainders; and
    last those that are left for all that has no part of its own.

    Args:
        unit: what they are, in the plural.

    Raises:
        DeviceError: together they ask for more than there is or leave none, or one asks for less
            than one unit.
    """
    asked = " + ".join(map(str, percents))
    if sum(percents) > 100:
        raise DeviceError(
            f"parts of {asked} = {sum(percents)} % are more than the {num_units} {unit} there are; "
            "lower them to 100 % together"
        )
    for percent in percents:
        if percent * num_units < 100:
            raise DeviceError(
                f"{percent} % of {num_units} {unit} is {percent * num_units / 100:.2f}, and a part "
                f"has one at least; ask for {-(-100 // max(num_units, 1))} % or more, or share the "
                "device in time (isolate: time)"
            )
    shares = [percent * num_units for percent in (*percents, 100 - sum(percents))]
    units = [share // 100 for share in shares]
    # Little may be left, but never nothing.
    is_raised = not units[-1]
    units[-1] += is_raised
    num_left = num_units - sum(units)
    if num_left < 0:
        most = 100 * (num_units - 1) // num_units
        raise DeviceError(
            f"parts of {asked} % take all {num_units} {unit}, and the other models and the serving "
            f"loop need one; ask for {most} % or less together, or share the device in time "
            "(isolate: time)"
        )
    remainders = sorted(range(len(units) - is_raised), key=lambda part: -(shares[part] % 100))
    for part in remainders[:num_left]:
        units[part] += 1
    return units
