"""From the name of an architecture to the family that runs it."""

from collections.abc import Callable, Mapping
from typing import Any

from moe_serve.errors import UnsupportedError
from moe_serve.models.deepseek import DeepseekV2, DeepseekV3
from moe_serve.models.experts_model import ExpertsModel, build_experts
from moe_serve.models.glm4_moe import Glm4Moe
from moe_serve.models.llama import Llama
from moe_serve.models.mixtral import Mixtral
from moe_serve.models.model import Family, Model, build
from moe_serve.models.qwen3 import Qwen3
from moe_serve.models.qwen3_moe import Qwen3Moe
from moe_serve.models.settings import Settings
from moe_serve.models.shape import ModelShape
from moe_serve.weights.loader import WeightLoader

FAMILIES: Mapping[str, Callable[[Settings], Family]] = {
    "DeepseekV2ForCausalLM": DeepseekV2,
    "DeepseekV3ForCausalLM": DeepseekV3,
    "Glm4MoeForCausalLM": Glm4Moe,
    "LlamaForCausalLM": Llama,
    "MixtralForCausalLM": Mixtral,
    "Qwen3ForCausalLM": Qwen3,
    "Qwen3MoeForCausalLM": Qwen3Moe,
}


def describe(config: Mapping[str, Any]) -> ModelShape:
    """The model's shape, from its config.json.

    Raises:
        UnsupportedError: an architecture, or a feature of it, that this version does not have.
        CheckpointError: a field that is missing or of a wrong type.
    """
    return find_family(config).shape


def build_model(config: Mapping[str, Any], loader: WeightLoader) -> Model:
    """The model with its weights, or the loader's shard of them; raises what `describe` and the
    loader raise."""
    return build(find_family(config), loader)


def build_experts_model(config: Mapping[str, Any], loader: WeightLoader) -> ExpertsModel:
    """The model of a rank with experts and no attention; raises what `describe`, the loader and
    `build_experts` raise."""
    return build_experts(describe(config), loader)


def find_family(config: Mapping[str, Any]) -> Family:
    """How the model of a config.json is made; raises what `describe` raises."""
    settings = Settings(config)
    if settings.architecture not in FAMILIES:
        raise UnsupportedError(
            f"architecture {settings.architecture} is not supported; "
            f"supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[settings.architecture](settings)
