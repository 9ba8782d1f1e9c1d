"""The architectures that can be priced: how their parts are read from a config.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from moe_placement.model.attention import AttentionSpec
from moe_placement.model.defaults import DEFAULTS
from moe_placement.model.fields import ConfigFields
from moe_placement.model.grouped_attention import (
    biased_attention,
    glm_attention,
    minimax_attention,
    normed_attention,
    plain_attention,
    windowed_attention,
)
from moe_placement.model.latent_attention import latent_attention, sparse_latent_attention
from moe_placement.model.linear_attention import hybrid_attention
from moe_placement.model.mlp import (
    MlpSpec,
    biased_mlp,
    dense_mlp,
    gated_share_mlp,
    glm_mlp,
    minimax_mlp,
    mixtral_mlp,
    qwen_mlp,
    sigmoid_mlp,
    softmax_mlp,
)


class UnsupportedModelError(ValueError):
    """A config.json of an architecture that this version does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one class of models is read.

    Attributes:
        attention: of each layer, in order.
        defaults: of transformers' config class; a config.json may leave these keys out.
        aliases: canonical key -> the other name that a config.json may use.
        draft_layers: the key that counts layers for multi-token prediction.
    """

    attention: Callable[[ConfigFields], Sequence[AttentionSpec]]
    mlp: Callable[[ConfigFields], MlpSpec]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    draft_layers: str = "num_nextn_predict_layers"


_DEEPSEEK_V3 = Architecture(
    attention=latent_attention,
    mlp=sigmoid_mlp,
    defaults=DEFAULTS["DeepseekV3ForCausalLM"],
    aliases={"n_routed_experts": "num_local_experts"},
)
_QWEN_3_5 = Architecture(
    attention=hybrid_attention,
    mlp=gated_share_mlp,
    defaults=DEFAULTS["Qwen3_5MoeForCausalLM"],
    draft_layers="mtp_num_hidden_layers",
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "DeepseekV3ForCausalLM": _DEEPSEEK_V3,
        "KimiK25ForConditionalGeneration": _DEEPSEEK_V3,
        "DeepseekV2ForCausalLM": Architecture(
            attention=latent_attention,
            mlp=softmax_mlp,
            defaults=DEFAULTS["DeepseekV2ForCausalLM"],
            aliases={"n_routed_experts": "num_experts"},
        ),
        "DeepseekV32ForCausalLM": Architecture(
            attention=sparse_latent_attention,
            mlp=glm_mlp,
            defaults=DEFAULTS["DeepseekV32ForCausalLM"],
            aliases={"n_routed_experts": "num_local_experts"},
        ),
        "GlmMoeDsaForCausalLM": Architecture(
            attention=sparse_latent_attention,
            mlp=glm_mlp,
            defaults=DEFAULTS["GlmMoeDsaForCausalLM"],
            aliases={"n_routed_experts": "num_local_experts"},
        ),
        "Glm4MoeForCausalLM": Architecture(
            attention=glm_attention,
            mlp=glm_mlp,
            defaults=DEFAULTS["Glm4MoeForCausalLM"],
            aliases={"n_routed_experts": "num_local_experts"},
        ),
        "Qwen3MoeForCausalLM": Architecture(
            attention=normed_attention,
            mlp=qwen_mlp,
            defaults=DEFAULTS["Qwen3MoeForCausalLM"],
            aliases={"num_experts": "num_local_experts"},
        ),
        "Qwen3_5MoeForCausalLM": _QWEN_3_5,
        "Qwen3_5MoeForConditionalGeneration": _QWEN_3_5,
        "MixtralForCausalLM": Architecture(
            attention=plain_attention,
            mlp=mixtral_mlp,
            defaults=DEFAULTS["MixtralForCausalLM"],
            aliases={"num_local_experts": "num_experts"},
        ),
        "GptOssForCausalLM": Architecture(
            attention=windowed_attention,
            mlp=biased_mlp,
            defaults=DEFAULTS["GptOssForCausalLM"],
            aliases={"num_local_experts": "num_experts"},
        ),
        "MiniMaxM2ForCausalLM": Architecture(
            attention=minimax_attention,
            mlp=minimax_mlp,
            defaults=DEFAULTS["MiniMaxM2ForCausalLM"],
            aliases={"num_local_experts": "num_experts"},
            draft_layers="num_mtp_modules",
        ),
        "LlamaForCausalLM": Architecture(
            attention=biased_attention, mlp=dense_mlp, defaults=DEFAULTS["LlamaForCausalLM"]
        ),
        "Qwen3ForCausalLM": Architecture(
            attention=normed_attention, mlp=dense_mlp, defaults=DEFAULTS["Qwen3ForCausalLM"]
        ),
    }
)


def find_architecture(config: Mapping[str, Any]) -> tuple[str, Architecture]:
    """Name and reader of a config.json's architecture; UnsupportedModelError if there is none.

    Kimi-K2 names DeepseekV3ForCausalLM, whatever its model_type.
    """
    names = config.get("architectures") or "(none named)"
    name = str(names[0] if isinstance(names, list) else names)
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"model architecture {name} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    return name, ARCHITECTURES[name]


def language_model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the language model, without the vision tower that some models add."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return config
    if "tie_word_embeddings" in config:
        return {**inner, "tie_word_embeddings": config["tie_word_embeddings"]}
    return inner
