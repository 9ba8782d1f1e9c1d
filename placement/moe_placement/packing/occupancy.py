"""How busy a device gets that bursty tenants share, beside one device for each of them."""

from dataclasses import dataclass

from moe_placement.packing.slices import PackError


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """Shares of the time that a device is busy.

    Attributes:
        alone: of one tenant on a device of its own: its duty.
        wanted: that at least one of the tenants wants the device.
        closed: packed, where each tenant's pause begins when its burst is done, so that a burst
            which waits also comes later: requests in a loop.
        packed: packed, where bursts come when they come and are worked off: requests in a stream.
    """

    num_tenants: int
    duty: float
    alone: float
    wanted: float
    closed: float
    packed: float

    @property
    def gain(self) -> float:
        """How many times as busy as devices of their own, for requests in a stream."""
        return self.packed / self.alone

    @property
    def closed_gain(self) -> float:
        """The same for requests in a loop."""
        return self.closed / self.alone

    @property
    def ceiling(self) -> float:
        """What no packing exceeds: 1 / duty, for a device is busy at most all of the time."""
        return 1.0 / self.duty


def occupancy(num_tenants: int, duty: float) -> Occupancy:
    """What to expect of like, independent tenants, each busy a share `duty` of its time if alone.

    A stream keeps the device busy `min(1, num_tenants * duty)` of the time. A loop is Palm's
    machine repair model (1947): tenants that pause for a mean time and then want the device for
    a mean time; taking turns in small steps, only the means matter (Baskett, Chandy, Muntz and
    Palacios, Journal of the ACM 22 (1975)).

    Raises:
        PackError: no tenants, or a duty that is not within 0..1.
    """
    if num_tenants < 1 or not 0 < duty <= 1:
        raise PackError(
            f"{num_tenants} tenants of duty {duty:g} have no occupancy; give at least 1 tenant and "
            "a duty above 0 and at most 1"
        )
    return Occupancy(
        num_tenants=num_tenants,
        duty=duty,
        alone=duty,
        wanted=1.0 - (1.0 - duty) ** num_tenants,
        closed=_closed(num_tenants, duty),
        packed=min(1.0, num_tenants * duty),
    )


def _closed(num_tenants: int, duty: float) -> float:
    """One minus the chance that all pause. In units of that chance, k of n tenants want the device
    with n! / (n - k)! (burst / pause) ** k."""
    if duty == 1:
        return 1.0
    ratio, term, total = duty / (1.0 - duty), 1.0, 1.0
    for waiting in range(num_tenants):
        term *= (num_tenants - waiting) * ratio
        total += term
    return 1.0 - 1.0 / total
