"""What single values cannot say: names and settings that must agree, served or only checked."""

from collections import Counter

from moe_serve.config.tree import Config, PlacementConfig, PoolConfig
from moe_serve.errors import ConfigError, UnsupportedError

# What may join the ranks of each device kind; the device's native one first.
COLLECTIVES = {
    "cpu": ("mpi", "gloo"),
    "cuda": ("nccl",),
    "npu": ("hccl",),
    "emulated": ("mpi", "gloo"),
}
DTYPES = ("float32", "bfloat16", "float16")
BUILTIN = "builtin:"
DEMO = "demo"


def validate(config: Config) -> None:
    """Refuse a config that contradicts itself or asks for what cannot even be planned.

    What can be planned and priced but not served is in `unserved.py`.

    Raises:
        ConfigError: keys that contradict one another.
        UnsupportedError: a setting that a later version may have.
    """
    _check_models(config)
    _check_pool_names(config)
    for index, pool in enumerate(config.pools):
        _check_collective(f"pools[{index}]", pool)
        if config.deterministic:
            _check_threads(f"pools[{index}]", pool)
    _check_links(config)
    _check_placement(config.placement)


def _check_models(config: Config) -> None:
    if len(config.models) > 1:
        raise UnsupportedError(
            f"models: this version serves one model, got {len(config.models)}; keep one entry"
        )


def _check_pool_names(config: Config) -> None:
    for name, times in Counter(pool.name for pool in config.pools).items():
        if times > 1:
            raise ConfigError(f'pools: {times} pools are named "{name}"; give each its own name')


def _check_collective(where: str, pool: PoolConfig) -> None:
    fitting = COLLECTIVES[pool.device]
    if pool.collective not in ("auto", *fitting):
        raise ConfigError(
            f"{where}.collective: {pool.collective} does not join {pool.device} ranks; "
            f"use auto or {' or '.join(fitting)}"
        )


def _check_threads(where: str, pool: PoolConfig) -> None:
    if pool.threads > 1:
        raise ConfigError(
            f"{where}.threads: deterministic: true computes with 1 thread, which gives one order "
            f"of adding, got {pool.threads}; remove the key or set deterministic: false"
        )


def _check_links(config: Config) -> None:
    names = [pool.name for pool in config.pools]
    for index, link in enumerate(config.links):
        for name in link.between:
            if name not in names:
                raise ConfigError(
                    f'links[{index}].between: there is no pool "{name}"; use {", ".join(names)}'
                )


def _check_placement(placement: PlacementConfig) -> None:
    if placement.plan != "auto":
        for key in ("redundancy", "load"):
            if getattr(placement, key):
                raise ConfigError(
                    f"placement.{key}: the plan file {placement.plan} says already where experts "
                    "and replicas are; remove one of the two keys"
                )
        return
    if placement.redundancy > 0 and not placement.load:
        raise ConfigError(
            f"placement.redundancy: {placement.redundancy:g} of the experts may have replicas, "
            "those that a load trace shows to be busy; name one as placement.load, or set it to 0"
        )
