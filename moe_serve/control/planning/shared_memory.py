"""What the ranks of one host declare of its memory, all together."""

from collections import defaultdict
from collections.abc import Sequence

from moe_comm.membership import Member, Membership

from moe_serve.config.tree import Config
from moe_serve.control.planning.hardware import declared_memory
from moe_serve.errors import ConfigError

_IN_HOST_MEMORY = ("cpu", "emulated")


def check_shared_memory(config: Config, world: Membership) -> None:
    """Refuse pools that declare more of a host's memory than there is for all their ranks on it;
    every rank of the world finds the same.

    Raises:
        ConfigError: both figures, and what each pool declares.
    """
    declared = {
        pool.name: memory
        for pool, memory in zip(config.pools, declared_memory(config), strict=True)
        if pool.device in _IN_HOST_MEMORY and memory
    }
    homes: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in world.members:
        if member.pool in declared and member.host_memory:
            homes[member.home].append(member)
    for members in homes.values():
        total = sum(declared[member.pool] for member in members)
        # Of processes with limits of their own the largest: together they may have no less.
        found = max(member.host_memory for member in members)
        if total > found:
            raise ConfigError(_too_much(members, declared, total, found))


def _too_much(members: Sequence[Member], declared: dict[str, int], total: int, found: int) -> str:
    pools = [member.pool for member in members]
    each = ", ".join(
        f"{name} {pools.count(name)} x {_gib(declared[name])}" for name in dict.fromkeys(pools)
    )
    return (
        f"pools[..].memory: {_gib(total)} for the {len(members)} ranks on host {members[0].host} "
        f"({each}), and it has {_gib(found)}; declare less, or start fewer ranks there"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
