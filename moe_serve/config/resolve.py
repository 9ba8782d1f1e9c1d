"""`auto` and 0 to what they mean here: a new config, and a log line for each choice."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.config.validate import COLLECTIVES, DTYPES, model_name
from moe_serve.errors import ConfigError

logger = logging.getLogger(__name__)


def resolve(config: Config, model_json: Mapping[str, Any], threads_per_rank: int) -> Config:
    """The config with nothing left to choose but what depends on free memory.

    `pools[].memory` and `cache.num_pages` stay 0 where the device is asked at bring-up. Threads
    are this host's; all else comes out the same on every host.

    Args:
        model_json: the model's config.json.
        threads_per_rank: CPU threads of each of this host's ranks, where a pool names none and
            `deterministic` does not ask for 1.

    Raises:
        ConfigError: the model's config.json does not say what `auto` follows, or contradicts
            the config; or what the pools resolve to does not go together.
    """
    model = _resolve_model(config.models[0], model_json)
    threads = 1 if config.deterministic else threads_per_rank
    pools = tuple(_resolve_pool(pool, model, threads) for pool in config.pools)
    _check_one_collective(pools)
    return replace(config, models=(model,), pools=pools)


def log_choices(before: Config, after: Config) -> None:
    """A line for each value that was left to choose."""
    for key, value in choices(before, after):
        logger.info("%s: chose %s", key, value)


def choices(before: Any, after: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of every leaf of `after` that is not the same in `before`."""
    if is_dataclass(before):
        for field in fields(before):
            inner = f"{where}.{field.name}" if where else field.name
            yield from choices(getattr(before, field.name), getattr(after, field.name), inner)
    elif isinstance(before, tuple):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from choices(old, new, f"{where}[{index}]")
    elif before != after:
        yield where, after


def _resolve_model(model: ModelConfig, model_json: Mapping[str, Any]) -> ModelConfig:
    return replace(
        model,
        name=model_name(model),
        dtype=resolve_dtype(model, model_json),
        max_context=_max_context(model.max_context, model_json),
    )


def _resolve_pool(pool: PoolConfig, model: ModelConfig, threads: int) -> PoolConfig:
    auto = pool.collective == "auto"
    return replace(
        pool,
        weights=model.dtype if pool.weights == "auto" else pool.weights,
        collective=COLLECTIVES[pool.device][0] if auto else pool.collective,
        threads=pool.threads or threads,
    )


def _check_one_collective(pools: Sequence[PoolConfig]) -> None:
    for kind in {pool.device for pool in pools}:
        alike = [pool for pool in pools if pool.device == kind]
        if len({pool.collective for pool in alike}) > 1:
            found = ", ".join(f"{pool.name}: {pool.collective}" for pool in alike)
            raise ConfigError(
                f"pools[..].collective: {kind} pools exchange over one collective, got {found}; "
                "set it to the same in all of them"
            )


def resolve_dtype(model: ModelConfig, model_json: Mapping[str, Any]) -> str:
    """What the config says, or what its `auto` follows.

    Raises:
        ConfigError: the model's config.json names a dtype that is not served.
    """
    if model.dtype != "auto":
        return model.dtype
    named = model_json.get("dtype", model_json.get("torch_dtype"))
    if named is None:
        return "float32"
    if named not in DTYPES:
        raise ConfigError(
            f"model.dtype: auto follows the model's config.json, which says {named!r}; "
            f"set it to one of {', '.join(DTYPES)}"
        )
    return str(named)


def _max_context(wanted: int, model_json: Mapping[str, Any]) -> int:
    limit = model_json.get("max_position_embeddings")
    if not isinstance(limit, int) or limit < 1:
        if wanted == 0:
            raise ConfigError(
                "model.max_context: the model's config.json has no max_position_embeddings to "
                "follow; set the most tokens of prompt and answer"
            )
        return wanted
    if wanted > limit:
        raise ConfigError(
            f"model.max_context: {wanted} tokens are more than the model's {limit} "
            "(max_position_embeddings); lower it"
        )
    return wanted or limit
