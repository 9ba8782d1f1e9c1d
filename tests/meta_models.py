"""Transformers' own classes on the meta device: parameters without storage, to count by."""

from collections.abc import Mapping
from typing import Any

import torch
from moe_placement.model.architectures import language_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# Of the language model alone, where an architecture has a vision tower too.
MODEL_TYPES = {
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "KimiK25ForConditionalGeneration": "deepseek_v3",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    "Glm4MoeForCausalLM": "glm4_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen3_5MoeForCausalLM": "qwen3_5_moe_text",
    "Qwen3_5MoeForConditionalGeneration": "qwen3_5_moe_text",
    "MixtralForCausalLM": "mixtral",
    "GptOssForCausalLM": "gpt_oss",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "LlamaForCausalLM": "llama",
    "Qwen3ForCausalLM": "qwen3",
}
_UNREAD = ("model_type", "quantization_config")
_PARTS = (
    ("norm", "norms"),
    ("embed_tokens", "embedding"),
    ("lm_head", "head"),
    ("self_attn", "attention"),
    ("linear_attn", "attention"),
    ("shared_expert", "shared_experts"),
    (".experts.", "experts"),
    (".gate.", "gate"),
    (".router.", "gate"),
    (".mlp.", "dense_mlp"),
)


def meta_model(config: Mapping[str, Any]) -> torch.nn.Module:
    """Transformers' language model of a config, without storage."""
    values = {key: v for key, v in language_model(config).items() if key not in _UNREAD}
    hub_config = CONFIG_MAPPING[MODEL_TYPES[config["architectures"][0]]].from_dict(values)
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(hub_config)
    return model


def count_by_part(model: torch.nn.Module) -> dict[str, int]:
    """The model's parameters under the names that a ModelSpec has for them."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = next(part for mark, part in _PARTS if mark in name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def count_biases(model: torch.nn.Module) -> int:
    """Elements of the routers' correction biases, which are buffers."""
    buffers = model.named_buffers()
    return sum(b.numel() for name, b in buffers if name.endswith("e_score_correction_bias"))
