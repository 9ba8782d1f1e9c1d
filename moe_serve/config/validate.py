"""What single values cannot say: names and settings that must agree, served or only checked."""

import re
from collections import Counter
from unicodedata import category

from moe_placement.model.names import served_name

from moe_serve.config.tree import Config, ModelConfig, PlacementConfig, PoolConfig
from moe_serve.config.workload import WorkloadConfig
from moe_serve.errors import ConfigError, UnsupportedError

# What may join the ranks of each device kind; the device's native one first.
COLLECTIVES = {
    "cpu": ("mpi", "gloo"),
    "cuda": ("nccl",),
    "npu": ("hccl",),
    "emulated": ("mpi", "gloo"),
}
DTYPES = ("float32", "bfloat16", "float16")
DEMO = "demo"
# Served at once; the step header has a word for each.
MAX_MODELS = 63
# Of Unicode: control characters, and what ends a line or a paragraph.
_UNPRINTED = ("Cc", "Zl", "Zp")
# Other characters are between names: in --pools, in logs and in the labels of metrics.
_POOL_NAME = re.compile(r"[\w.-]+")


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
        _check_attention(f"pools[{index}]", pool)
        _check_compute_percent(f"pools[{index}]", pool)
    _check_links(config)
    _check_placement(config.placement)
    _check_workload(config.placement.workload)
    _check_roles(config)


def _check_models(config: Config) -> None:
    if len(config.models) > MAX_MODELS:
        raise ConfigError(
            f"models: at most {MAX_MODELS} models are served at once, got {len(config.models)}"
        )
    for name, times in Counter(map(model_name, config.models)).items():
        if times > 1:
            raise ConfigError(
                f'models: {times} models are called "{name}", which requests could not tell '
                "apart; give each its own name"
            )
    for index, model in enumerate(config.models):
        check_slice(f"models[{index}]", model, config.num_ranks)
    if config.has_slices:
        _check_beside_others(config)


def check_slice(where: str, model: ModelConfig, num_ranks: int) -> None:
    """Refuse an entry of `models` that contradicts itself; ConfigError."""
    name = model_name(model)
    if name in (".", "..") or any(category(letter) in _UNPRINTED for letter in name):
        raise ConfigError(
            f"{where}.name: {name[:80]!r} cannot be the last part of a URL; give another one, "
            "without control characters and line breaks"
        )
    if model.rank >= num_ranks:
        raise ConfigError(
            f"{where}.rank: there is no rank {model.rank}, ranks are 0 to {num_ranks - 1}; "
            "change it, or leave it out"
        )
    spread_out = model.spread == "all" and num_ranks > 1
    if spread_out and model.rank >= 0:
        raise ConfigError(
            f"{where}.rank: {model.rank} is one rank, and spread: all asks for all of them; "
            "remove one of the two keys"
        )
    if spread_out and model.slice.isolate == "sm":
        raise ConfigError(
            f"{where}.slice.isolate: sm keeps a part of one device, and spread: all asks for all "
            f"{num_ranks} ranks; set isolate: time or spread: one"
        )


def _check_beside_others(config: Config) -> None:
    """What works only where one model has the ranks to itself."""
    for index, pool in enumerate(config.pools):
        if pool.role not in ("both", "experts"):
            raise UnsupportedError(
                f"pools[{index}].role: this version does both phases in the same pools where "
                f"several models share them, got {pool.role}; use both or experts"
            )
    if config.accuracy.max_kl:
        raise UnsupportedError(
            "accuracy.max_kl: this version checks the accuracy of a model that is served alone; "
            "remove the key, or keep one entry of models and no server.admin_keys"
        )


def _check_pool_names(config: Config) -> None:
    for name, times in Counter(pool.name for pool in config.pools).items():
        if times > 1:
            raise ConfigError(f'pools: {times} pools are named "{name}"; give each its own name')
    for index, pool in enumerate(config.pools):
        if not _POOL_NAME.fullmatch(pool.name):
            raise ConfigError(
                f"pools[{index}].name: expected letters, digits, dots, - and _ alone, "
                f"got {pool.name!r}; rename the pool"
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


def _check_compute_percent(where: str, pool: PoolConfig) -> None:
    if pool.device != "cpu" and pool.compute_percent < 100:
        raise ConfigError(
            f"{where}.compute_percent: a process is held to a part of a cpu's time, not of "
            f"{pool.device}'s, got {pool.compute_percent}; remove the key, or use slices"
        )


def _check_attention(where: str, pool: PoolConfig) -> None:
    shards = pool.attention.tensor_parallel
    if pool.role == "experts" and shards > 1:
        raise ConfigError(
            f"{where}.attention.tensor_parallel: an experts pool has no attention to share, got "
            f"{shards}; remove the key"
        )
    if pool.ranks % shards:
        raise ConfigError(
            f"{where}.attention.tensor_parallel: {shards} does not divide the pool's "
            f"{pool.ranks} ranks; change one of the two"
        )
    if pool.device == "emulated" and not pool.hardware:
        raise ConfigError(
            f"{where}.hardware: an emulated pool must say what it emulates; name a device of the "
            "catalogue (moe_plan lists them) or a device file"
        )


def _check_links(config: Config) -> None:
    names = [pool.name for pool in config.pools]
    seen: set[frozenset[str]] = set()
    for index, link in enumerate(config.links):
        ends = frozenset(link.between)
        if len(ends) < 2 or ends in seen:
            raise ConfigError(
                f"links[{index}].between: [{', '.join(link.between)}] is given twice or joins a "
                "pool to itself; name two pools, each pair once"
            )
        seen.add(ends)
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


def _check_workload(workload: WorkloadConfig) -> None:
    for key in ("rate", "prompt_tokens", "output_tokens"):
        if workload.is_given and not getattr(workload, key):
            raise ConfigError(
                f"placement.workload.{key}: this key is missing or 0; a workload is given whole, "
                "e.g. {rate: 2/s, prompt_tokens: 1000, output_tokens: 200}"
            )


def _check_roles(config: Config) -> None:
    asking = [index for index, pool in enumerate(config.pools) if pool.role == "auto"]
    if not asking:
        return
    key = f"pools[{asking[0]}].role"
    if config.placement.plan != "auto":
        raise ConfigError(
            f"{key}: auto is for placement.plan: auto, and the plan file {config.placement.plan} "
            "is made for roles that are given; give this one"
        )
    if not config.placement.workload.is_given:
        raise ConfigError(
            f"{key}: auto is decided by the requests that are expected; give placement.workload, "
            "e.g. {rate: 2/s, prompt_tokens: 1000, output_tokens: 200}, or a role"
        )
    for index, pool in enumerate(config.pools):
        if not pool.hardware:
            raise ConfigError(
                f"pools[{index}].hardware: {key} is auto, which compares the devices of all pools; "
                "name a device of the catalogue or a device file, or give that role"
            )


def model_name(model: ModelConfig) -> str:
    """What requests call the model: what the config says, else its directory's name."""
    return served_name(model.path, model.name)
