"""Parts of one device's processors, each for one tenant's work."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from moe_devices.errors import DeviceError


class Partition(Protocol):
    """Processors that work of other parts of the same split does not run on."""

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
    """Whole units for each percentage: what it amounts to, rounded by the largest remainders.

    Args:
        unit: what they are, in the plural.

    Raises:
        DeviceError: together they ask for more than there is, or one for less than one unit.
    """
    if sum(percents) > 100:
        asked = " + ".join(map(str, percents))
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
    units = [percent * num_units // 100 for percent in percents]
    num_left = sum(percents) * num_units // 100 - sum(units)
    remainders = sorted(range(len(percents)), key=lambda part: -(percents[part] * num_units % 100))
    for part in remainders[:num_left]:
        units[part] += 1
    return units
