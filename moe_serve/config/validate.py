"""What single values cannot say: names that must agree, and what this version does not do."""

from collections import Counter

from moe_serve.config.tree import Config, PlacementConfig, PoolConfig
from moe_serve.errors import ConfigError, UnsupportedError

# What may join the ranks of each device kind; the device's native one first.
COLLECTIVES = {"cpu": ("mpi", "gloo"), "cuda": ("nccl",)}
DTYPES = ("float32", "bfloat16", "float16")
BUILTIN = "builtin:"
DEMO = "demo"


def validate(config: Config) -> None:
    """Refuse a config that contradicts itself or asks for what this version lacks.

    Raises:
        ConfigError: keys that contradict one another.
        UnsupportedError: a setting that a later version may have.
    """
    _check_pool_names(config)
    _refuse_later_pools(config)
    for index, pool in enumerate(config.pools):
        _refuse_later_settings(f"pools[{index}]", pool)
        _check_collective(f"pools[{index}]", pool)
        if config.deterministic:
            _check_threads(f"pools[{index}]", pool)
    _refuse_later_links(config)
    _check_placement(config.placement)


def _check_pool_names(config: Config) -> None:
    for name, times in Counter(pool.name for pool in config.pools).items():
        if times > 1:
            raise ConfigError(f'pools: {times} pools are named "{name}"; give each its own name')


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
    if pool.weights not in ("auto", *DTYPES):
        raise UnsupportedError(
            f"{where}.weights: this version computes in {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, "
            f"not {pool.weights}; leave the key out to store weights in the model's dtype"
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


def _check_threads(where: str, pool: PoolConfig) -> None:
    if pool.threads > 1:
        raise ConfigError(
            f"{where}.threads: deterministic: true computes with 1 thread, which gives one order "
            f"of adding, got {pool.threads}; remove the key or set deterministic: false"
        )


def _refuse_later_links(config: Config) -> None:
    if config.links:
        raise UnsupportedError(
            f"links: this version joins like devices by their collective and has no links to "
            f"declare, got {len(config.links)}; remove them"
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
    if placement.redundancy > 0:
        raise UnsupportedError(
            f"placement.redundancy: the automatic plan of this version has no replicas, got "
            f"{placement.redundancy:g}; set it to 0, or name a plan file that has them"
        )
    if placement.load:
        raise UnsupportedError(
            "placement.load: the automatic plan of this version splits experts evenly and reads "
            "no load trace; remove it, or name a plan file made from the trace"
        )
