"""What single values cannot say: names that must agree, and what this version does not do."""

from collections import Counter

from moe_serve.config.rules import nearest
from moe_serve.config.tree import Config, PoolConfig
from moe_serve.errors import ConfigError, UnsupportedError

COLLECTIVES = {"cpu": ("mpi", "gloo"), "cuda": ("nccl",)}
BUILTIN = "builtin:"
DEMO = "demo"


def validate(config: Config) -> None:
    """Refuse a config that contradicts itself or asks for what this version lacks.

    Raises:
        ConfigError: keys that contradict one another.
        UnsupportedError: a setting that a later version may have.
    """
    _check_pool_names(config)
    _check_links(config)
    _refuse_later_pools(config)
    for index, pool in enumerate(config.pools):
        _refuse_later_settings(f"pools[{index}]", pool)
        _check_collective(f"pools[{index}]", pool)
    _refuse_later_placement(config)


def _check_pool_names(config: Config) -> None:
    for name, times in Counter(pool.name for pool in config.pools).items():
        if times > 1:
            raise ConfigError(f'pools: {times} pools are named "{name}"; give each its own name')


def _check_links(config: Config) -> None:
    names = [pool.name for pool in config.pools]
    for index, link in enumerate(config.links):
        for name in link.between:
            if name not in names:
                help_ = nearest(name, names).replace("keys", "pools")
                raise ConfigError(f'links[{index}].between: no pool is named "{name}"; {help_}')
        if link.between[0] == link.between[1]:
            raise ConfigError(f'links[{index}].between: joins "{link.between[0]}" to itself')


def _refuse_later_pools(config: Config) -> None:
    if len(config.models) > 1:
        raise UnsupportedError(
            f"models: this version serves one model, got {len(config.models)}; keep one entry"
        )
    for index, pool in enumerate(config.pools):
        if pool.device not in COLLECTIVES:
            raise UnsupportedError(
                f'pools[{index}].device: this version does not drive "{pool.device}"; '
                f"use {' or '.join(COLLECTIVES)}"
            )
    kinds = sorted({pool.device for pool in config.pools})
    if len(kinds) > 1:
        raise UnsupportedError(
            f"pools: this version serves pools of one device kind, got {' and '.join(kinds)}; "
            "keep the pools of one kind"
        )


def _refuse_later_settings(where: str, pool: PoolConfig) -> None:
    if pool.role != "both":
        raise UnsupportedError(
            f'{where}.role: this version has no "{pool.role}" ranks, every rank does prefill and '
            'decode; set it to "both"'
        )
    if pool.attention.tensor_parallel != 1:
        raise UnsupportedError(
            f"{where}.attention.tensor_parallel: this version keeps attention whole on each rank, "
            f"got {pool.attention.tensor_parallel}; set it to 1"
        )


def _check_collective(where: str, pool: PoolConfig) -> None:
    fitting = COLLECTIVES[pool.device]
    if pool.collective not in ("auto", *fitting):
        raise ConfigError(
            f"{where}.collective: {pool.collective} does not join {pool.device} ranks; "
            f"use auto or {' or '.join(fitting)}"
        )


def _refuse_later_placement(config: Config) -> None:
    placement = config.placement
    if placement.plan != "auto":
        return
    if placement.redundancy > 0:
        raise UnsupportedError(
            f"placement.redundancy: the automatic plan of this version has no replicas, "
            f"got {placement.redundancy:g}; set it to 0 or name a plan file in placement.plan"
        )
    if placement.load:
        raise UnsupportedError(
            "placement.load: the automatic plan of this version splits experts evenly and reads "
            "no load trace; remove it or name a plan file in placement.plan"
        )
