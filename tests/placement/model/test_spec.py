"""What a ModelSpec counts is what transformers' own classes have, exactly, part by part."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from meta_models import MODEL_TYPES, count_biases, count_by_part, meta_model
from moe_placement.model.architectures import ARCHITECTURES, UnsupportedModelError
from moe_placement.model.catalogue import find_config, find_model, shipped_models
from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LLAMA_BIASED = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": True,
    "head_dim": 96,
    "mlp_bias": True,
    "num_key_value_heads": 8,
}
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
GPT_OSS_UNBIASED = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": False,
    "num_hidden_layers": 3,
    "sliding_window": 64,
}
HYBRID_BIASED = {
    "architectures": ["Qwen3_5MoeForCausalLM"],
    "attention_bias": True,
    "full_attention_interval": 2,
    "linear_conv_kernel_dim": 3,
    "linear_value_head_dim": 64,
    "num_hidden_layers": 5,
    "tie_word_embeddings": True,
}
SHARED_INDEXERS = {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "index_skip_topk_offset": 3,
    "index_topk_freq": 4,
    "num_hidden_layers": 11,
}
VARIANTS = {
    "llama-biased": LLAMA_BIASED,
    "qwen3-0.6b": QWEN3_0_6B,
    "qwen-mixed": MIXED_QWEN,
    "latent-biased": BIASED_LATENT,
    "gpt-oss-unbiased": GPT_OSS_UNBIASED,
    "hybrid-biased": HYBRID_BIASED,
    "shared-indexers": SHARED_INDEXERS,
}

# Other sizes of models that are counted anyway.
SIBLINGS = {
    "glm_5_2",
    "gpt_oss_20b",
    "llama_3_1_405b",
    "llama_3_1_70b",
    "mixtral_8x22b",
    "qwen3_32b",
    "qwen3_coder_480b_a35b",
}


def assert_equal_counts(config: dict[str, Any]) -> None:
    model, spec = meta_model(config), ModelSpec.from_config(config)
    assert spec.total_parameters == sum(p.numel() for p in model.parameters())
    assert {part: n for part, n in spec.parameters.items() if n} == count_by_part(model)
    assert spec.num_buffers == count_biases(model)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SIBLINGS))
        for name in shipped_models()
    ],
)
def test_shipped_models_count_as_transformers_does(name: str) -> None:
    assert_equal_counts(find_config(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_other_settings_count_as_transformers_does(name: str) -> None:
    assert_equal_counts(VARIANTS[name])


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


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("deepseek_v3", 671e9, 37e9),
        ("deepseek_v2_lite", 15.7e9, 2.4e9),
        ("glm_4_5", 355e9, 32e9),
        ("glm_5", 744e9, 40e9),
        ("gpt_oss_120b", 116.8e9, 5.1e9),
        ("gpt_oss_20b", 20.9e9, 3.6e9),
        ("kimi_k2", 1.03e12, 32e9),
        ("minimax_m2_5", 230e9, 10e9),
        ("mixtral_8x22b", 141e9, 39e9),
        ("qwen3_235b_a22b", 235e9, 22e9),
        ("qwen3_5_397b_a17b", 397e9, 17e9),
        ("qwen3_coder_480b_a35b", 480e9, 35e9),
    ],
)
def test_totals_are_those_that_were_published(name: str, total: float, active: float) -> None:
    spec = find_model(name)
    assert spec.total_parameters == pytest.approx(total, rel=0.01)
    assert spec.active_parameters == pytest.approx(active, rel=0.05)


def test_deepseek_v3_is_the_model_that_was_published(
    shipped_config: Callable[[str], dict[str, Any]],
) -> None:
    spec = ModelSpec.from_config(shipped_config("deepseek_v3"))
    assert spec.total_parameters == 671_026_404_352
    assert spec.active_parameters == pytest.approx(36.6e9, rel=0.002)
    assert spec.total_parameters - spec.parameters["experts"] == pytest.approx(17.1e9, rel=0.002)
    assert spec.moe_layers == tuple(range(3, 61))
    assert (spec.num_experts, spec.num_experts_per_token) == (256, 8)
    assert spec.num_draft_layers == 1


def test_the_head_is_active_and_the_embedding_is_not() -> None:
    dense = find_model("llama_3_1_8b")
    assert dense.active_parameters == dense.total_parameters - dense.embedding
    tied = ModelSpec.from_config(QWEN3_0_6B)
    assert tied.head == 0
    assert tied.active_parameters == tied.total_parameters


def test_which_layers_are_routed() -> None:
    config = find_config("deepseek_v2_lite")
    assert ModelSpec.from_config(MIXED_QWEN).moe_layers == (1, 7)
    assert find_model("glm_4_5").moe_layers == tuple(range(3, 92))
    assert find_model("llama_3_1_8b").moe_layers == ()
    every_third = {**config, "num_hidden_layers": 8, "moe_layer_freq": 3}
    assert ModelSpec.from_config(every_third).moe_layers == (3, 6)
    all_dense = ModelSpec.from_config({**MIXED_QWEN, "num_experts": 0})
    assert (all_dense.moe_layers, all_dense.num_experts) == ((), 0)


def test_layers_for_drafts_are_noted_under_every_name() -> None:
    names = ("glm_5", "minimax_m2_5", "qwen3_5_397b_a17b", "kimi_k2_5", "llama_3_1_8b")
    assert [find_model(name).num_draft_layers for name in names] == [1, 3, 1, 0, 0]


def test_either_name_of_the_experts_is_read() -> None:
    config = find_config("deepseek_v2_lite")
    renamed = {("num_experts" if key == "n_routed_experts" else key): config[key] for key in config}
    assert renamed != config
    assert asdict(ModelSpec.from_config(renamed)) == asdict(ModelSpec.from_config(config))


def test_a_tower_decides_whether_the_head_is_tied() -> None:
    config = find_config("kimi_k2_5")
    tied = ModelSpec.from_config({**config, "tie_word_embeddings": True})
    assert (tied.head, ModelSpec.from_config(config).head) == (0, 163840 * 7168)


@pytest.mark.parametrize("named", ["GrokForCausalLM", ["GrokForCausalLM"]])
def test_an_unsupported_architecture_is_refused_by_name(named: object) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ModelSpec.from_config({"architectures": named})
    assert "GrokForCausalLM is not supported" in str(caught.value)
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
        ({"num_experts_per_tok": 300}, "num_experts_per_tok 300; there are 64 experts"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings 'no'; it must be true or false"),
    ],
)
def test_a_number_that_cannot_be_right_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_config({**find_config("deepseek_v2_lite"), **change})
    assert sentence in str(caught.value)
