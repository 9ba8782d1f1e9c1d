"""Ranks present themselves to one another, before torch is loaded, and may refuse one another."""

import hashlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import msgspec
from moe_comm.membership import (
    Member,
    Membership,
    disagreement,
    encode_member,
    host_ranks,
    membership,
)
from moe_comm.transport.joined import Joined
from moe_comm.transport.rendezvous import assemble, tell
from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_host import Host
from moe_comm.transport.rendezvous_point import MeetingPoint, RendezvousError
from moe_comm.transport.roll_call import RollCall
from moe_comm.transport.tcp_connect import join_address, listen, own_address, split_address

from moe_serve.config.tree import Config, WorldConfig
from moe_serve.config.validate import model_name
from moe_serve.control.meeting.host import host_identity, host_memory
from moe_serve.control.meeting.meeting_point import meeting_point
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import LaunchedWorld, served_pools
from moe_serve.errors import AgreedError, BringUpError, ConfigError

# Of what a rank reads, by part.
Digests = Callable[[], Mapping[str, str]]


def join(config: Config, launch: LaunchedWorld, ranks: RollCall, digests: Digests) -> LaunchedWorld:
    """This rank in a world whose members know one another; called by all ranks.

    Args:
        launch: with its plan rank.
        ranks: of this rank's mpirun.
        digests: of what this rank reads of its models; asked for where there is another rank to
            compare it with.

    Raises:
        AgreedError: they run different versions, read different configs or models, or sit wrongly;
            or not all mpiruns came. The same on all ranks of all mpiruns.
    """
    numbers = [int(rank) for rank in ranks.allgather_bytes(b"%d" % launch.rank)]
    own = _present(config, launch, _agreed_digests(config, ranks, numbers, digests))
    if launch.in_mpirun.size < launch.size:
        return _join_others(config, launch, ranks, own, numbers)
    world = membership(0, ranks.allgather_bytes(encode_member(own)))
    fault = disagreement(world)
    if fault is not None:
        raise AgreedError(fault)
    return replace(launch, joined=Joined(launch.rank, world))


def tell_other_mpiruns(config: Config, names: tuple[str, ...], ranks: RollCall, error: str) -> None:
    """Let those end that would wait for this mpirun; called by all ranks of one that cannot go on.

    Args:
        names: of the pools that this mpirun was told to serve.
    """
    if config.world.address and ranks.rank == 0:
        pools = tuple(pool.name for pool in config.pools)
        try:
            point = meeting_point(config)
        except ConfigError:
            point = None
        if point is not None:
            tell(point, Party(names or pools, socket.gethostname(), error=error), pools)
    ranks.allgather_bytes(b"")


def config_digest(config: Config) -> str:
    """Equal for configs that say the same, wherever their checkpoints and their secrets lie."""
    models = tuple(replace(model, path="", name=model_name(model)) for model in config.models)
    world = WorldConfig(deadline=config.world.deadline)
    common = replace(config, models=models, world=world)
    return hashlib.sha256(repr(common).encode()).hexdigest()[:12]


def _agreed_digests(
    config: Config, ranks: RollCall, numbers: Sequence[int], digests: Digests
) -> Mapping[str, str]:
    if config.num_ranks == 1:
        return {}
    try:
        return together(ranks, digests, numbers)
    except AgreedError as error:
        pools = served_pools(config, [config.pool_of(number).name for number in numbers])
        tell_other_mpiruns(config, pools, ranks, str(error))
        raise


def _join_others(
    config: Config, launch: LaunchedWorld, ranks: RollCall, own: Member, numbers: Sequence[int]
) -> LaunchedWorld:
    point = together(ranks, lambda: meeting_point(config), numbers)
    address, listener = together(ranks, lambda: _listen(point), numbers)
    own = replace(
        own,
        mpirun=numbers[0],
        address=join_address(address, listener.getsockname()[1]),
    )
    encoded = ranks.allgather_bytes(encode_member(own))
    members = membership(0, encoded).members
    answer, host = _ask(config, point, members, ranks)
    world = Membership(0, answer.members)
    local = host_ranks(world, launch.rank)
    joined = Joined(
        launch.rank,
        world,
        point.key(answer.session),
        listener,
        host,
        answer.comeback,
        config.world.deadline,
    )
    return replace(
        launch,
        local_rank=local.index(launch.rank),
        local_size=len(local),
        joined=joined,
        address=address,
    )


def _ask(
    config: Config, point: MeetingPoint, members: tuple[Member, ...], ranks: RollCall
) -> tuple[Answer, Host | None]:
    """The first rank goes to the meeting point, and shares what it was told."""
    answer, host = Answer(), None
    if ranks.rank == 0:
        pools = tuple(pool.name for pool in config.pools)
        served = served_pools(config, [member.pool for member in members])
        party = Party(served, members[0].host, members)
        try:
            answer, host = assemble(point, party, pools, is_host=members[0].plan_rank == 0)
        except RendezvousError as error:
            answer = Answer(refusal=str(error))
    shared = ranks.allgather_bytes(msgspec.msgpack.encode(answer))[0]
    answer = msgspec.msgpack.decode(shared, type=Answer)
    if answer.refusal:
        raise AgreedError(answer.refusal)
    return answer, host


def _listen(point: MeetingPoint) -> tuple[str, socket.socket]:
    """A socket at this host's address on the way to the meeting point, and at no other."""
    host, port = split_address(point.address)
    try:
        address = own_address(host, port)
        return address, listen(address)
    except OSError as error:
        raise BringUpError(
            f"world.address {point.address}: this host has no way there ({error}); name an "
            "address that all hosts reach"
        ) from error


def _present(config: Config, launch: LaunchedWorld, model_digests: Mapping[str, str]) -> Member:
    """How this process presents itself."""
    pool = config.pool_of(launch.rank)
    return Member(
        plan_rank=launch.rank,
        pool=pool.name,
        device_kind=pool.device,
        host=socket.gethostname(),
        host_identity=host_identity(),
        host_memory=host_memory(),
        process_id=os.getpid(),
        local_rank=launch.in_mpirun.local_rank,
        version=version("moe-serve"),
        digest=config_digest(config),
        model_digests=model_digests,
    )
