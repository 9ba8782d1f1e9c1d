"""Who is in the world, under which epoch: our own record, whatever launcher started the ranks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One rank as it presents itself at bring-up.

    Attributes:
        plan_rank: its stable number in the plan.
        pool: the config entry that it belongs to.
        device_kind: cpu, cuda, npu.
        host: the host's name.
        host_identity: tells hosts of one name apart.
        process_id: on that host.
        local_rank: its number among the ranks of its mpirun on its host.
        version: of the program it runs.
        digest: of the config it read.
        mpirun: plan rank of the first rank of its mpirun.
        host_memory: bytes of its host's memory that processes like it may use; 0 where it is not
            told.
        address: HOST:PORT where ranks of other mpiruns reach it; empty where there are none.
        model_digests: of what must be alike in the models that it serves, by what each is of.
    """

    plan_rank: int
    pool: str
    device_kind: str
    host: str
    process_id: int
    local_rank: int
    version: str
    digest: str
    host_identity: str = ""
    mpirun: int = 0
    host_memory: int = 0
    address: str = ""
    model_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> tuple[str, str]:
        """The same for the members of one host."""
        return self.host, self.host_identity


@dataclass(frozen=True, slots=True)
class Membership:
    """The world under one epoch; a member that leaves or comes makes the next epoch.

    Attributes:
        members: in order of plan rank.
    """

    epoch: int
    members: tuple[Member, ...]


def encode_member(member: Member) -> bytes:
    return msgspec.msgpack.encode(member)


def membership(epoch: int, encoded_members: list[bytes]) -> Membership:
    """The record that every rank makes of what all of them presented.

    Raises:
        ValueError: an entry is not an encoded member (msgspec.ValidationError).
    """
    members = [msgspec.msgpack.decode(data, type=Member) for data in encoded_members]
    return Membership(epoch, tuple(sorted(members, key=lambda member: member.plan_rank)))


def host_ranks(world: Membership, plan_rank: int) -> list[int]:
    """Plan ranks of all members on this one's host, whichever mpirun started them."""
    homes = {member.plan_rank: member.home for member in world.members}
    return [rank for rank, home in homes.items() if home == homes[plan_rank]]


def device_index(world: Membership, plan_rank: int) -> int:
    """Which of its host's devices of its kind a member drives: ranks take them in order."""
    kinds = {member.plan_rank: member.device_kind for member in world.members}
    lower = [rank for rank in host_ranks(world, plan_rank) if rank < plan_rank]
    return sum(kinds[rank] == kinds[plan_rank] for rank in lower)


def disagreement(world: Membership, *, is_complete: bool = True) -> str | None:
    """Why these members cannot form one world, as a sentence, or None where they can.

    What most ranks hold counts as right, in a tie what the lowest plan rank holds; the sentence
    names the lowest plan rank that differs.

    Args:
        is_complete: nobody is to come any more.
    """
    faults = sorted(_faults(world.members, is_complete), key=lambda fault: fault[0])
    return faults[0][1] if faults else None


def _faults(members: tuple[Member, ...], is_complete: bool) -> Iterator[tuple[int, str]]:
    yield from _number_faults(members, is_complete)
    yield from _seat_faults(members)
    yield from _odd_ones(
        members,
        [member.version for member in members],
        "runs version",
        "install the same version on every host",
    )
    yield from _odd_ones(
        members,
        [member.digest for member in members],
        "read a config with digest",
        "give every rank the same config file",
    )
    yield from _model_faults(members)
    for pool in sorted({member.pool for member in members}):
        alike = tuple(member for member in members if member.pool == pool)
        yield from _odd_ones(
            alike,
            [member.device_kind for member in alike],
            f"of pool {pool!r} drives device kind",
            "a pool is of like devices: give the others a pool of their own",
        )


def _number_faults(members: tuple[Member, ...], is_complete: bool) -> Iterator[tuple[int, str]]:
    count = Counter(member.plan_rank for member in members)
    for plan_rank in sorted(set(range(len(members))) | set(count)):
        if count[plan_rank] > 1:
            yield plan_rank, f"plan rank {plan_rank} is taken by {count[plan_rank]} processes"
        elif count[plan_rank] == 0 and is_complete:
            yield plan_rank, f"plan rank {plan_rank} of {len(members)} is missing"


def _seat_faults(members: tuple[Member, ...]) -> Iterator[tuple[int, str]]:
    seats: dict[tuple[object, ...], int] = {}
    for member in members:
        seat = (member.home, member.mpirun, member.local_rank)
        first = seats.setdefault(seat, member.plan_rank)
        if first != member.plan_rank:
            yield (
                member.plan_rank,
                f"plan rank {member.plan_rank} has local rank {member.local_rank} on host"
                f" {member.host}, as plan rank {first} has; each rank of a host needs its own",
            )


def _model_faults(members: tuple[Member, ...]) -> Iterator[tuple[int, str]]:
    parts = dict.fromkeys(part for member in members for part in member.model_digests)
    for part in parts:
        readers = tuple(member for member in members if part in member.model_digests)
        yield from _odd_ones(
            readers,
            [member.model_digests[part] for member in readers],
            f"reads {part} with digest",
            "give every rank the same checkpoint",
        )


def _odd_ones(
    members: tuple[Member, ...], values: Sequence[str], verb: str, remedy: str
) -> Iterator[tuple[int, str]]:
    common = Counter(values).most_common(1)[0][0]
    holder = members[values.index(common)].plan_rank
    for member, value in zip(members, values, strict=True):
        if value != common:
            yield (
                member.plan_rank,
                f"plan rank {member.plan_rank} on host {member.host} {verb} {value}, plan rank"
                f" {holder} {common}; {remedy}",
            )
