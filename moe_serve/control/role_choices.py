"""Which roles the pools of a config could have, and what such roles are called."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from moe_placement.hardware.device import DeviceSpec

from moe_serve.config.tree import Config, PoolConfig

Roles = tuple[str, ...]


def role_choices(config: Config, hardware: Mapping[str, DeviceSpec]) -> list[Roles]:
    """All that can be served by pools whose roles may be auto, by pool; at least one, and first
    that in which no phase is apart.

    A CPU beside other devices has experts alone; every other pool does both phases, or either
    where another does the other.
    """
    options = [_options(pool, hardware) for pool in config.pools]
    chosen = [roles for roles in product(*options) if _is_served(config, roles)]
    return chosen or [tuple(each[0] for each in options)]


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


def _options(pool: PoolConfig, hardware: Mapping[str, DeviceSpec]) -> tuple[str, ...]:
    if pool.role != "auto":
        return (pool.role,)
    kinds = {device.kind for device in hardware.values()}
    is_host = hardware[pool.name].kind == "cpu" and kinds != {"cpu"}
    if is_host and pool.attention.tensor_parallel == 1:
        return ("experts",)
    return ("both", "prefill", "decode")


def _is_served(config: Config, roles: Roles) -> bool:
    """Whether all phases are somebody's; who may choose does both only where nobody prefills."""
    phases = set(roles) - {"experts"}
    if "prefill" not in phases:
        return phases == {"both"}
    pools = zip(config.pools, roles, strict=True)
    free = {role for pool, role in pools if pool.role == "auto"}
    return len(phases) > 1 and "both" not in free
