"""Fixed parts of one rank's memory, by tenant: kept for good, or used by one tenant at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Parts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Bookings:
    """Never changed, always replaced: another thread may be reading them.

    Attributes:
        kept: bytes, by tenant and part.
        in_turn: the same of parts that tenants leave when they have had their step: together they
            take what the largest one's do.
        total: bytes of all.
    """

    kept: Mapping[int, Parts] = field(default_factory=dict)
    in_turn: Mapping[int, Parts] = field(default_factory=dict)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        kept = sum(sum(parts.values()) for parts in self.kept.values())
        largest = max((sum(parts.values()) for parts in self.in_turn.values()), default=0)
        object.__setattr__(self, "total", kept + largest)

    def of(self, tenant: int) -> dict[str, int]:
        """Bytes by part, as if the tenant had the rank to itself."""
        return {**self.kept.get(tenant, {}), **self.in_turn.get(tenant, {})}

    def put(self, tenant: int, part: str, num_bytes: int, *, in_turn: bool) -> "Bookings":
        """One part more, or another size of it."""
        if in_turn:
            return Bookings(self.kept, _put(self.in_turn, tenant, part, num_bytes))
        return Bookings(_put(self.kept, tenant, part, num_bytes), self.in_turn)

    def without(self, tenant: int) -> "Bookings":
        return Bookings(_without(self.kept, tenant), _without(self.in_turn, tenant))


def _put(
    booked: Mapping[int, Parts], tenant: int, part: str, num_bytes: int
) -> Mapping[int, Parts]:
    return {**booked, tenant: {**booked.get(tenant, {}), part: num_bytes}}


def _without(booked: Mapping[int, Parts], tenant: int) -> Mapping[int, Parts]:
    return {number: parts for number, parts in booked.items() if number != tenant}
