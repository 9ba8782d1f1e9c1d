"""Which ranks of a plan meet where: EP groups, the pools in them, and attention groups."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from moe_placement.plan import Plan, PoolPlan

from moe_serve.config.tree import Config, LinkConfig
from moe_serve.control.planning.expert_problem import find_links
from moe_serve.errors import ConfigError

Partition = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class RankGroups:
    """Every rank is in one part of each partition; parts are ascending.

    Attributes:
        steps: EP groups, whose ranks step together.
        native: the ranks of an EP group whose devices exchange by their own collective: of one
            pool, or of several of one kind that no link parts.
        attention: the ranks that share one copy of attention weights; their first is the leader.
    """

    steps: Partition
    native: Partition
    attention: Partition

    @staticmethod
    def of(config: Config, plan: Plan) -> "RankGroups":
        native = [
            [rank for pool in like for rank in pool.ep_groups()[group]]
            for group in plan.ep_groups()
            for like in like_pools(config, plan, group)
        ]
        attention = [ranks for pool in plan.pools for ranks in _attention_groups(pool)]
        steps = list(plan.ep_groups().values())
        return RankGroups(_partition(steps), _partition(native), _partition(attention))

    def without(self, lost: Collection[int]) -> "RankGroups":
        """Those of the ranks that are left."""
        return RankGroups(
            *(_without(each, lost) for each in (self.steps, self.native, self.attention))
        )

    def native_names(self, plan: Plan) -> dict[int, str]:
        """What each rank's part of `native` is called: its pools' names, joined by +."""
        names: dict[int, str] = {}
        for part in self.native:
            pools = dict.fromkeys(plan.pool_of(rank).name for rank in part)
            names |= dict.fromkeys(part, "+".join(pools))
        return names

    def homes(self, plan: Plan) -> tuple[int, ...]:
        """Plan ranks that take requests: the leaders of attention groups that decode."""
        return self._leaders(plan, "both", "decode")

    def prefill_ranks(self, plan: Plan) -> tuple[int, ...]:
        """Plan ranks that compute prompts for the homes and generate nothing themselves."""
        return self._leaders(plan, "prefill")

    def _leaders(self, plan: Plan, *roles: str) -> tuple[int, ...]:
        return tuple(part[0] for part in self.attention if plan.role_of(part[0]) in roles)

    def is_leader(self, rank: int) -> bool:
        """Whether a rank is the first of its attention group."""
        return part_of(self.attention, rank)[0] == rank


def part_of(partition: Partition, rank: int) -> tuple[int, ...]:
    """The part that holds a plan rank."""
    return next(part for part in partition if rank in part)


def like_pools(config: Config, plan: Plan, group: int) -> list[list[PoolPlan]]:
    """The pools of an EP group: together where they are of one kind and no link parts them."""
    together: list[list[PoolPlan]] = []
    for pool in plan.pools:
        if not pool.is_in(group):
            continue
        for others in together:
            if all(_are_like(config, pool, other) for other in others):
                others.append(pool)
                break
        else:
            together.append([pool])
    return together


def _are_like(config: Config, one: PoolPlan, other: PoolPlan) -> bool:
    linked = find_links(config.links, one.name, other.name)
    return _kind(config, one) == _kind(config, other) and not linked


def _kind(config: Config, pool: PoolPlan) -> str:
    """What a pool's devices are; an emulated one's are what they emulate."""
    if pool.device != "emulated":
        return pool.device
    hardware = next(each.hardware for each in config.pools if each.name == pool.name)
    return f"{pool.device} {hardware}"


def links_between(links: Sequence[LinkConfig], one: str, other: str) -> list[LinkConfig]:
    """Links between two parts, each of one pool or of several whose names are joined by +."""
    return [
        link
        for name in one.split("+")
        for neighbour in other.split("+")
        for link in find_links(links, name, neighbour)
    ]


def check_groups(config: Config, plan: Plan) -> None:
    """Refuse unlike pools of one EP group that no link joins, and phases that are nobody's.

    Raises:
        ConfigError: names the two pools and the entry that is missing, or the role.
    """
    _check_phases(config)
    for group in plan.ep_groups():
        pools = [pool for pool in plan.pools if pool.is_in(group)]
        for one, other in combinations(pools, 2):
            kinds = _kind(config, one), _kind(config, other)
            if kinds[0] != kinds[1] and not find_links(config.links, one.name, other.name):
                raise ConfigError(
                    f'links: pools "{one.name}" ({kinds[0]}) and "{other.name}" '
                    f"({kinds[1]}) are in one expert-parallel group and no link joins them; "
                    f"declare it, e.g. links: [{{between: [{one.name}, {other.name}], "
                    f"bandwidth: 25GB/s, latency: 5us}}]"
                )
        if all(pool.role == "experts" for pool in pools):
            raise ConfigError(
                f'pools: "{pools[0].name}" has role experts and no pool beside it has attention; '
                "give another pool the role both, prefill or decode"
            )


def _check_phases(config: Config) -> None:
    roles = {pool.role for pool in config.pools} - {"experts"}
    for phase, other in (("prefill", "decode"), ("decode", "prefill")):
        if roles == {phase}:
            raise ConfigError(
                f"pools[..].role: all pools that take tokens have the role {phase} and none does "
                f"{other}; give one the role {other}, or both to all"
            )


def _attention_groups(pool: PoolPlan) -> Iterator[Sequence[int]]:
    ranks, size = sorted(pool.ranks), pool.tensor_parallel
    if len(ranks) % size or len(ranks) // pool.num_ep_groups % size:
        raise ConfigError(
            f'pools "{pool.name}": attention.tensor_parallel is {size}, which does not divide its '
            f"{len(ranks) // pool.num_ep_groups} ranks; change one of the two"
        )
    return (ranks[first : first + size] for first in range(0, len(ranks), size))


def _without(partition: Partition, lost: Collection[int]) -> Partition:
    left = [[rank for rank in part if rank not in lost] for part in partition]
    return _partition([part for part in left if part])


def _partition(parts: Sequence[Sequence[int]]) -> Partition:
    return tuple(sorted(tuple(sorted(part)) for part in parts))
