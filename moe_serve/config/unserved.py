"""What this version does not serve, although a config may say it and `--check` can price it."""

from collections.abc import Iterator

from moe_kernels.formats import WEIGHT_FORMATS, served_formats

from moe_serve.config.tree import Config, PoolConfig
from moe_serve.errors import UnsupportedError

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
    for index, pool in enumerate(config.pools):
        yield from _unserved_weights(f"pools[{index}]", pool.weights, config.models[0].dtype)
        yield from _unserved_groups(f"pools[{index}]", pool)


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


def _unserved_weights(where: str, weights: str, dtype: str) -> Iterator[str]:
    if weights == "auto":
        return
    served = WEIGHT_FORMATS if dtype == "auto" else served_formats(dtype)
    if weights not in served:
        beside = "" if dtype == "auto" else f" beside activations in {dtype}"
        yield (
            f"{where}.weights: this version does not compute with {weights} weights{beside}; use "
            f"{', '.join(served)}, or leave the key out to store weights in the model's dtype"
        )


def _unserved_groups(where: str, pool: PoolConfig) -> Iterator[str]:
    if pool.device == "npu" and pool.attention.tensor_parallel > 1:
        yield (
            f"{where}.attention.tensor_parallel: this version opens one HCCL group in a process, "
            f"that of the experts, got {pool.attention.tensor_parallel}; remove the key"
        )
