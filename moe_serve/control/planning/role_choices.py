"""Which roles the pools of a config could have, and what such roles are called."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement, product
from math import prod

from moe_placement.hardware.device import DeviceSpec

from moe_serve.config.tree import Config, PoolConfig

Roles = tuple[str, ...]

# Each has its experts placed and its times predicted.
MOST_WAYS = 32


class TooManyWaysError(ValueError):
    """More ways to share the phases than are looked at."""


def role_choices(config: Config, hardware: Mapping[str, DeviceSpec]) -> list[Roles]:
    """All that can be served by pools whose roles may be auto, by pool; at least one, and first
    that in which no phase is apart.

    A CPU beside other devices has experts alone; every other pool does both phases, or either
    where another does the other. Of pools that differ in name alone the first ones prefill.

    Raises:
        TooManyWaysError: how many there are, how many are looked at, and what to do.
    """
    together = tuple(_alone(pool, hardware) for pool in config.pools)
    free = [index for index, pool in enumerate(config.pools) if _is_free(pool, hardware)]
    groups = _alike(config, free)
    if (num_ways := prod(len(group) + 1 for group in groups)) > MOST_WAYS:
        raise TooManyWaysError(
            f"{len(free)} pools can share the phases in {num_ways} ways, {MOST_WAYS} at most are "
            "compared; give some of them a role"
        )
    ways = [together, *_apart(together, groups)]
    return [roles for roles in ways if _is_served(config, roles)] or [together]


def freed(config: Config) -> Config:
    """The config in which every pool with attention may do any phase."""
    return with_roles(
        config, tuple("experts" if pool.role == "experts" else "auto" for pool in config.pools)
    )


def with_roles(config: Config, roles: Roles) -> Config:
    """The config with these roles."""
    pools = zip(config.pools, roles, strict=True)
    return replace(config, pools=tuple(replace(pool, role=role) for pool, role in pools))


def roles_of(config: Config) -> Roles:
    """By pool."""
    return tuple(pool.role for pool in config.pools)


def is_apart(roles: Sequence[str]) -> bool:
    """Whether some pools do one phase alone."""
    return "prefill" in roles


def named(config: Config, roles: Roles) -> str:
    """As in `npu prefill, gpu decode`."""
    pools = zip(config.pools, roles, strict=True)
    return ", ".join(f"{pool.name} {role}" for pool, role in pools)


def _alone(pool: PoolConfig, hardware: Mapping[str, DeviceSpec]) -> str:
    """Its role where no phase is apart."""
    if pool.role != "auto":
        return pool.role
    return "both" if _is_free(pool, hardware) else "experts"


def _is_free(pool: PoolConfig, hardware: Mapping[str, DeviceSpec]) -> bool:
    """Whether it may do either phase."""
    if pool.role != "auto":
        return False
    kinds = {device.kind for device in hardware.values()}
    is_host = hardware[pool.name].kind == "cpu" and kinds != {"cpu"}
    return not is_host or pool.attention.tensor_parallel > 1


def _alike(config: Config, free: Sequence[int]) -> list[list[int]]:
    """Pools that differ in name alone, together."""
    groups: list[list[int]] = []
    for index in free:
        for group in groups:
            if all(_are_alike(config, index, other) for other in group):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _are_alike(config: Config, index: int, other: int) -> bool:
    """Whether nothing changes where the two take each other's place."""
    one, two = config.pools[index], config.pools[other]
    swapped = {one.name: two.name, two.name: one.name}
    links = {(frozenset(each.between), replace(each, between=("", ""))) for each in config.links}
    after = {(frozenset(swapped.get(name, name) for name in ends), link) for ends, link in links}
    return replace(one, name=two.name) == two and links == after


def _apart(together: Roles, groups: Sequence[Sequence[int]]) -> Iterator[Roles]:
    """Every pool of the groups does one phase."""
    ways = [combinations_with_replacement(("prefill", "decode"), len(group)) for group in groups]
    for chosen in product(*ways):
        roles = list(together)
        for group, phases in zip(groups, chosen, strict=True):
            for index, phase in zip(group, phases, strict=True):
                roles[index] = phase
        yield tuple(roles)


def _is_served(config: Config, roles: Roles) -> bool:
    """Whether all phases are somebody's; who may choose does both only where nobody prefills."""
    phases = set(roles) - {"experts"}
    if "prefill" not in phases:
        return phases == {"both"}
    pools = zip(config.pools, roles, strict=True)
    free = {role for pool, role in pools if pool.role == "auto"}
    return len(phases) > 1 and "both" not in free
