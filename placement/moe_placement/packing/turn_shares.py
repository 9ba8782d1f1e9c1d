"""Shares of turns on devices of which some slices keep a part of the processors to themselves."""

from collections.abc import Sequence

# The device that a slice is on, or None for one that spans all of them; its share of each.
Asked = tuple[int | None, float]


class KeptProcessors:
    """What slices with processors of their own keep: also when they have gone, for processors are
    divided once."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, float]] = {}

    def keep(self, number: int, device: int, share: float) -> None:
        self._kept[number] = (device, share)

    def turn_shares(self, asked: Sequence[Asked]) -> list[float]:
        """For slices that take turns on the processors that are left: shares of their time that
        come to the shares of the device that are asked for.

        A slice that spans all devices has its turns on all of them at once: its share is that of
        the device where least is left.
        """
        left = {device: self._left(device, asked) for device, _ in self._kept.values()}
        least = min(left.values(), default=1.0)
        return [
            share / (least if device is None else left.get(device, 1.0)) for device, share in asked
        ]

    def _left(self, device: int, asked: Sequence[Asked]) -> float:
        """As a share of the device: but where those that kept a part have gone and their share
        was promised anew, shares of turns are still at most all of them."""
        kept = sum(share for at, share in self._kept.values() if at == device)
        taking_turns = sum(share for at, share in asked if at in (None, device))
        return min(1.0, max(1 - kept, taking_turns))
