"""The architectures that can be priced and served: their parts, and transformers' defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from moe_placement.model.attention import (
    AttentionSpec,
    biased_attention,
    glm_attention,
    grouped_attention,
    latent_attention,
    normed_attention,
)
from moe_placement.model.fields import ConfigFields
from moe_placement.model.mlp import (
    MlpSpec,
    dense_mlp,
    glm_mlp,
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
        defaults: of transformers' config class; a config.json may leave these keys out.
        aliases: canonical key -> the other name that a config.json may use.
    """

    attention: Callable[[ConfigFields], AttentionSpec]
    mlp: Callable[[ConfigFields], MlpSpec]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)


_LATENT = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
_LLAMA = {
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "DeepseekV3ForCausalLM": Architecture(
            attention=latent_attention,
            mlp=sigmoid_mlp,
            defaults={
                **_LATENT,
                "vocab_size": 129280,
                "max_position_embeddings": 4096,
                "hidden_size": 7168,
                "intermediate_size": 18432,
                "moe_intermediate_size": 2048,
                "num_hidden_layers": 61,
                "num_attention_heads": 128,
                "n_shared_experts": 1,
                "n_routed_experts": 256,
                "num_experts_per_tok": 8,
                "first_k_dense_replace": 3,
            },
            aliases={"n_routed_experts": "num_local_experts"},
        ),
        "DeepseekV2ForCausalLM": Architecture(
            attention=latent_attention,
            mlp=softmax_mlp,
            defaults={
                **_LLAMA,
                **_LATENT,
                "vocab_size": 102400,
                "max_position_embeddings": 2048,
                "moe_intermediate_size": 1407,
                "n_shared_experts": 2,
                "n_routed_experts": 64,
                "first_k_dense_replace": 0,
            },
            aliases={"n_routed_experts": "num_experts"},
        ),
        "Qwen3MoeForCausalLM": Architecture(
            attention=normed_attention,
            mlp=qwen_mlp,
            defaults={
                "vocab_size": 151936,
                "max_position_embeddings": 32768,
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "attention_bias": False,
                "tie_word_embeddings": False,
                "decoder_sparse_step": 1,
                "moe_intermediate_size": 768,
                "num_experts_per_tok": 8,
                "num_experts": 128,
            },
            aliases={"num_experts": "num_local_experts"},
        ),
        "Glm4MoeForCausalLM": Architecture(
            attention=glm_attention,
            mlp=glm_mlp,
            defaults={
                "vocab_size": 151552,
                "max_position_embeddings": 131072,
                "hidden_size": 4096,
                "intermediate_size": 10944,
                "num_hidden_layers": 46,
                "num_attention_heads": 96,
                "num_key_value_heads": 8,
                "attention_bias": False,
                "use_qk_norm": False,
                "tie_word_embeddings": False,
                "moe_intermediate_size": 1408,
                "n_shared_experts": 1,
                "n_routed_experts": 128,
                "num_experts_per_tok": 8,
                "first_k_dense_replace": 1,
            },
            aliases={"n_routed_experts": "num_local_experts"},
        ),
        "MixtralForCausalLM": Architecture(
            attention=grouped_attention,
            mlp=mixtral_mlp,
            defaults={
                "vocab_size": 32000,
                "max_position_embeddings": 131072,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "tie_word_embeddings": False,
                "num_experts_per_tok": 2,
                "num_local_experts": 8,
            },
            aliases={"num_local_experts": "num_experts"},
        ),
        "LlamaForCausalLM": Architecture(
            attention=biased_attention, mlp=dense_mlp, defaults=_LLAMA
        ),
        "Qwen3ForCausalLM": Architecture(
            attention=normed_attention,
            mlp=dense_mlp,
            defaults={
                "vocab_size": 151936,
                "max_position_embeddings": 32768,
                "hidden_size": 4096,
                "intermediate_size": 22016,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "head_dim": 128,
                "attention_bias": False,
                "tie_word_embeddings": False,
            },
        ),
    }
)


def find_architecture(config: Mapping[str, Any]) -> tuple[str, Architecture]:
    """Name and reader of a config.json's architecture; UnsupportedModelError if there is none.

    Kimi-K2 names DeepseekV3ForCausalLM, whatever its model_type.
    """
    names = config.get("architectures") or ["(none named)"]
    name = str(names[0])
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"model architecture {name} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    return name, ARCHITECTURES[name]
