"""Parameter counts are those of transformers' own classes, for models as they are published."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from moe_placement.model.architectures import ARCHITECTURES, UnsupportedModelError
from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

MODEL_TYPES = {
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Glm4MoeForCausalLM": "glm4_moe",
    "MixtralForCausalLM": "mixtral",
    "LlamaForCausalLM": "llama",
    "Qwen3ForCausalLM": "qwen3",
}

DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "vocab_size": 102400,
}
KIMI_K2 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "first_k_dense_replace": 1,
    "n_group": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "topk_group": 1,
    "vocab_size": 163840,
}
QWEN3_235B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
    "num_local_experts": 128,
}
GLM_4_5 = {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "first_k_dense_replace": 3,
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "num_attention_heads": 96,
    "num_hidden_layers": 92,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": True,
}
LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LLAMA_BIASED = {**LLAMA_3_8B, "attention_bias": True, "mlp_bias": True, "head_dim": 96}
QWEN3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
MIXED_QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": True,
    "decoder_sparse_step": 2,
    "head_dim": 64,
    "mlp_only_layers": [3, 5],
    "num_hidden_layers": 9,
}
BIASED_LATENT = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "attention_bias": True,
    "mlp_bias": True,
    "first_k_dense_replace": 2,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 4,
}

CONFIGS = {
    "deepseek-v2-lite": DEEPSEEK_V2_LITE,
    "kimi-k2": KIMI_K2,
    "qwen3-235b-a22b": QWEN3_235B,
    "glm-4.5": GLM_4_5,
    "llama-3-8b": LLAMA_3_8B,
    "llama-biased": LLAMA_BIASED,
    "qwen3-0.6b": QWEN3_0_6B,
    "qwen-mixed": MIXED_QWEN,
    "latent-biased": BIASED_LATENT,
}


def meta_model(config: dict[str, Any]) -> torch.nn.Module:
    """Transformers' model of a config, without storage."""
    hub_config = CONFIG_MAPPING[MODEL_TYPES[config["architectures"][0]]].from_dict(
        {key: value for key, value in config.items() if key != "model_type"}
    )
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(hub_config)
    return model


def count_by_part(model: torch.nn.Module) -> dict[str, int]:
    """The model's parameters under the names that a ModelSpec has for them."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def part_of(name: str) -> str:
    for mark, part in (
        ("norm", "norms"),
        ("embed_tokens", "embedding"),
        ("lm_head", "head"),
        ("self_attn", "attention"),
        ("shared_experts", "shared_experts"),
        (".experts.", "experts"),
        (".gate.", "gate"),
        (".mlp.", "dense_mlp"),
    ):
        if mark in name:
            return part
    raise AssertionError(f"{name} belongs to no part")


def assert_equal_counts(config: dict[str, Any]) -> None:
    model, spec = meta_model(config), ModelSpec.from_config(config)
    assert spec.total_parameters == sum(p.numel() for p in model.parameters())
    assert {part: n for part, n in spec.parameters.items() if n} == count_by_part(model)
    biases = [b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")]
    assert spec.num_buffers == sum(bias.numel() for bias in biases)


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_30b_a3b", "mixtral_8x7b"])
def test_shipped_configs_count_as_transformers_does(
    name: str, shipped_config: Callable[[str], dict[str, Any]]
) -> None:
    assert_equal_counts(shipped_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_published_configs_count_as_transformers_does(name: str) -> None:
    assert_equal_counts(CONFIGS[name])


@pytest.mark.parametrize("architecture", MODEL_TYPES)
def test_missing_keys_have_the_defaults_of_transformers(architecture: str) -> None:
    # The one key that DeepSeek-V2 requires; two layers keep the meta models small.
    layers = {"num_hidden_layers": 2, "num_experts_per_tok": 2}
    assert_equal_counts({"architectures": [architecture], **layers})
    default = CONFIG_MAPPING[MODEL_TYPES[architecture]]()
    spec = ModelSpec.from_config({"architectures": [architecture], "num_experts_per_tok": 2})
    assert spec.num_layers == default.num_hidden_layers


@pytest.mark.parametrize("architecture", MODEL_TYPES)
def test_every_default_is_that_of_transformers(architecture: str) -> None:
    default = CONFIG_MAPPING[MODEL_TYPES[architecture]]()
    for key, value in ARCHITECTURES[architecture].defaults.items():
        assert getattr(default, key) == value, key


def test_the_supported_architectures_are_all_checked() -> None:
    assert set(MODEL_TYPES) == set(ARCHITECTURES)


def test_deepseek_v3_is_the_model_that_was_published(
    shipped_config: Callable[[str], dict[str, Any]],
) -> None:
    spec = ModelSpec.from_config(shipped_config("deepseek_v3"))
    assert spec.total_parameters == 671_026_404_352
    assert spec.active_parameters == pytest.approx(36.6e9, rel=0.002)
    assert spec.total_parameters - spec.parameters["experts"] == pytest.approx(17.1e9, rel=0.002)
    assert spec.moe_layers == tuple(range(3, 61))
    assert (spec.num_experts, spec.num_experts_per_token) == (256, 8)
    assert spec.kv_elements == 576


def test_active_parameters_of_others() -> None:
    assert ModelSpec.from_config(GLM_4_5).active_parameters == pytest.approx(32e9, rel=0.05)
    assert ModelSpec.from_config(KIMI_K2).active_parameters == pytest.approx(32e9, rel=0.03)
    dense = ModelSpec.from_config(LLAMA_3_8B)
    assert dense.active_parameters == dense.total_parameters - dense.embedding
    tied = ModelSpec.from_config(QWEN3_0_6B)
    assert tied.head == 0
    assert tied.active_parameters == tied.total_parameters


def test_grouped_attention_caches_keys_and_values() -> None:
    assert ModelSpec.from_config(QWEN3_235B).kv_elements == 2 * 4 * 128
    assert ModelSpec.from_config(LLAMA_3_8B).kv_elements == 2 * 8 * (4096 // 32)


def test_which_layers_are_routed() -> None:
    assert ModelSpec.from_config(MIXED_QWEN).moe_layers == (1, 7)
    assert ModelSpec.from_config(GLM_4_5).moe_layers == tuple(range(3, 92))
    assert ModelSpec.from_config(LLAMA_3_8B).moe_layers == ()
    every_third = {**DEEPSEEK_V2_LITE, "num_hidden_layers": 8, "moe_layer_freq": 3}
    assert ModelSpec.from_config(every_third).moe_layers == (3, 6)
    all_dense = ModelSpec.from_config({**MIXED_QWEN, "num_experts": 0})
    assert (all_dense.moe_layers, all_dense.num_experts) == ((), 0)


def test_either_name_of_the_experts_is_read() -> None:
    other_name = {key: v for key, v in DEEPSEEK_V2_LITE.items() if key != "n_routed_experts"}
    renamed = ModelSpec.from_config({**other_name, "num_experts": 64})
    assert asdict(renamed) == asdict(ModelSpec.from_config(DEEPSEEK_V2_LITE))


def test_an_unsupported_architecture_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ModelSpec.from_config({"architectures": ["GptOssForCausalLM"]})
    assert "GptOssForCausalLM is not supported" in str(caught.value)
    assert all(name in str(caught.value) for name in MODEL_TYPES)
    with pytest.raises(UnsupportedModelError, match="none named"):
        ModelSpec.from_config({"model_type": "deepseek_v3"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_hidden_layers": "61"}, "num_hidden_layers '61'; it must be a whole number"),
        ({"hidden_size": 0}, "hidden_size 0; it must be above 0"),
        ({"kv_lora_rank": None}, "kv_lora_rank None"),
        ({"moe_layer_freq": 0}, "moe_layer_freq 0; it must be above 0"),
        ({"n_routed_experts": -1}, "n_routed_experts -1"),
        ({"num_experts_per_tok": True}, "num_experts_per_tok True"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings 'no'; it must be true or false"),
    ],
)
def test_a_number_that_cannot_be_right_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_config({**DEEPSEEK_V2_LITE, **change})
    assert sentence in str(caught.value)
