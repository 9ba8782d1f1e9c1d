"""What this version does not serve, although a config may say it and `--check` can price it."""

from collections.abc import Iterator

from moe_serve.config.tree import Config, PoolConfig
from moe_serve.config.validate import DTYPES
from moe_serve.errors import UnsupportedError

SERVED_DEVICES = ("cpu", "cuda")
SERVED_ARCHITECTURES = (
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "Glm4MoeForCausalLM",
    "LlamaForCausalLM",
    "MixtralForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)


def unserved(config: Config) -> Iterator[str]:
    """A sentence for each setting that a later version may serve; of a resolved config, all."""
    kinds = sorted({pool.device for pool in config.pools})
    if len(kinds) > 1:
        yield (
            f"pools: this version serves pools of one device kind, got {' and '.join(kinds)}; "
            "keep the pools of one kind"
        )
    for index, pool in enumerate(config.pools):
        yield from _unserved_pool(f"pools[{index}]", pool, config.models[0].dtype)
    if config.links:
        yield (
            f"links: this version joins like devices by their collective and has no links to "
            f"declare, got {len(config.links)}; remove them"
        )


def require_served(config: Config) -> None:
    """Refuse to serve what this version cannot.

    Raises:
        UnsupportedError: the first of the sentences.
    """
    for sentence in unserved(config):
        raise UnsupportedError(sentence)


def unserved_architecture(name: str) -> Iterator[str]:
    """A sentence for a model that can be planned for, and not served."""
    if name not in SERVED_ARCHITECTURES:
        yield (
            f"model: this version plans for {name} and does not serve it; "
            f"serve one of {', '.join(SERVED_ARCHITECTURES)}"
        )


def _unserved_pool(where: str, pool: PoolConfig, dtype: str) -> Iterator[str]:
    if pool.device not in SERVED_DEVICES:
        yield (
            f'{where}.device: this version does not drive "{pool.device}"; '
            f"use {' or '.join(SERVED_DEVICES)}"
        )
    if pool.role != "both":
        yield (
            f'{where}.role: this version has no "{pool.role}" ranks, every rank does prefill and '
            'decode; set it to "both"'
        )
    yield from _unserved_weights(where, pool.weights, dtype)
    if pool.attention.tensor_parallel != 1:
        yield (
            f"{where}.attention.tensor_parallel: this version keeps attention whole on each rank, "
            f"got {pool.attention.tensor_parallel}; set it to 1"
        )


def _unserved_weights(where: str, weights: str, dtype: str) -> Iterator[str]:
    if weights not in ("auto", *DTYPES):
        yield (
            f"{where}.weights: this version computes in {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, "
            f"not {weights}; leave the key out to store weights in the model's dtype"
        )
    elif "auto" not in (weights, dtype) and weights != dtype:
        yield (
            f"{where}.weights: {weights} differs from model.dtype, which is {dtype}; "
            f"this version stores weights in the model's dtype, so leave {where}.weights out or "
            f"set model.dtype to {weights}"
        )
