"""Caches, states and FLOPs of attention by kind, against figures worked out by hand."""

from typing import Any

import pytest
from moe_placement.model.catalogue import find_config, find_model
from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec

KIB = 1024


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        # 61 latents of 512, each with a rotary key of 64; DeepSeek-V3 is known for 70 KB.
        ("deepseek_v3", 70_272),
        ("kimi_k2_5", 70_272),
        ("deepseek_v2_lite", 27 * 576 * 2),
        # An indexer's key of 128 beside each latent.
        ("deepseek_v3_2", 61 * (576 + 128) * 2),
        ("glm_5", 78 * (576 + 128) * 2),
        # 21 of 78 layers have an indexer.
        ("glm_5_2", (78 * 576 + 21 * 128) * 2),
        # Llama-3.1: 128 KiB for 8B, 320 for 70B, 504 for 405B.
        ("llama_3_1_8b", 128 * KIB),
        ("llama_3_1_70b", 320 * KIB),
        ("llama_3_1_405b", 504 * KIB),
        ("qwen3_235b_a22b", 94 * 2 * 4 * 128 * 2),
        ("glm_4_5", 92 * 2 * 8 * 128 * 2),
        ("minimax_m2_5", 62 * 2 * 8 * 128 * 2),
        ("gpt_oss_120b", 36 * 2 * 8 * 64 * 2),
        # Only 15 of its 60 layers keep anything of a token.
        ("qwen3_5_397b_a17b", 15 * 2 * 2 * 256 * 2),
    ],
)
def test_bytes_of_a_token_in_the_cache(name: str, num_bytes: int) -> None:
    assert 2 * find_model(name).kv_elements_per_token == num_bytes


def test_a_window_bounds_what_a_layer_keeps() -> None:
    spec = find_model("gpt_oss_120b")
    assert [(layer.window, count) for layer, count in spec.attention_layers] == [(128, 18), (0, 18)]
    token = 2 * 8 * 64
    assert spec.kv_elements_at(100) == 36 * token * 100
    assert spec.kv_elements_at(8192) == 18 * token * (128 + 8192)
    whole = find_model("llama_3_1_8b")
    assert whole.kv_elements_at(8192) == 8192 * whole.kv_elements_per_token


def test_a_latent_is_multiplied_out_in_prefill_alone() -> None:
    ((layer, count),) = find_model("deepseek_v3").attention_layers
    assert (layer.kind, count, layer.num_heads, layer.num_kv_heads) == ("latent", 61, 128, 1)
    assert layer.prefill_flops_per_pair == 2 * 128 * (128 + 64 + 128)
    assert layer.decode_flops_per_pair == 2 * 128 * (512 + 64 + 512)


def test_sparse_attention_selects_with_an_indexer() -> None:
    ((layer, count),) = find_model("deepseek_v3_2").attention_layers
    assert (layer.kind, count, layer.selected) == ("sparse_latent", 61, 2048)
    assert layer.prefill_flops_per_pair == layer.decode_flops_per_pair == 2 * 128 * 1088
    assert (layer.kv_elements, layer.indexer_elements) == (576, 128)
    # 64 heads: a product of 128, and its weight in the sum over heads.
    assert layer.indexer_flops_per_pair == 2 * 64 * 129


def test_layers_may_take_what_another_selected() -> None:
    layers = dict(reversed(pair) for pair in find_model("glm_5_2").attention_layers)
    assert set(layers) == {21, 57}
    assert (layers[57].selected, layers[57].indexer_elements) == (2048, 0)
    assert layers[21].parameters - layers[57].parameters == 2048 * 32 * 128 + 6144 * (128 + 32)
    full = {**find_config("glm_5_2"), "indexer_types": None}
    assert ModelSpec.from_config(full).attention_layers == find_model("glm_5_2").attention_layers


def test_grouped_heads_share_keys_but_not_products() -> None:
    ((layer, count),) = find_model("qwen3_235b_a22b").attention_layers
    assert (layer.kind, count, layer.num_heads, layer.num_kv_heads) == ("grouped", 94, 64, 4)
    assert layer.prefill_flops_per_pair == layer.decode_flops_per_pair == 4 * 64 * 128
    assert (layer.window, layer.selected, layer.state_elements) == (0, 0, 0)


def test_linear_layers_keep_a_state_and_no_tokens() -> None:
    spec = find_model("qwen3_5_397b_a17b")
    (linear, num_linear), (full, num_full) = spec.attention_layers
    assert (linear.kind, num_linear, full.kind, num_full) == ("linear", 45, "grouped", 15)
    assert (linear.cache_elements, linear.decode_flops_per_pair) == (0, 0)
    # A matrix for each of 64 heads, and three past inputs of the convolution.
    state = 64 * 128 * 128 + 3 * (2 * 16 * 128 + 64 * 128)
    assert linear.state_elements == state
    assert spec.state_elements == 45 * state
    assert spec.attention == full
    assert spec.rotary_elements == 262144 * 2 * 64


@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss_120b", "llama_3_1_8b", "glm_5"])
def test_a_token_costs_two_flops_for_each_active_parameter(name: str) -> None:
    spec = find_model(name)
    flops = spec.flops_per_token
    assert sum(flops.values()) == pytest.approx(2 * spec.active_parameters, rel=0.002)
    assert flops["head"] == 2 * spec.vocab_size * spec.hidden_size
    routed = len(spec.moe_layers) * spec.num_experts_per_token * spec.mlp.expert
    assert flops["experts"] == 2 * routed


def test_a_state_adds_flops_to_attention() -> None:
    spec = find_model("qwen3_5_397b_a17b")
    states = 45 * 7 * 64 * 128 * 128
    assert spec.flops_per_token["attention"] == 2 * spec.parameters["attention"] + states
    tied = ModelSpec.from_config({**find_config("llama_3_1_8b"), "tie_word_embeddings": True})
    assert tied.flops_per_token == find_model("llama_3_1_8b").flops_per_token


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("gpt_oss_20b", {"layer_types": ["full_attention"]}, "num_hidden_layers 24 kinds"),
        ("gpt_oss_20b", {"layer_types": ["chunked"] * 24}, "layer_types with 'chunked'; known"),
        ("gpt_oss_20b", {"sliding_window": 0}, "sliding_window 0; it must be above 0"),
        ("glm_5_2", {"indexer_types": ["half"] * 78}, "it must be a list of full or shared"),
        ("glm_5", {"index_topk": None}, "index_topk None; it must be a whole number"),
    ],
)
def test_layers_that_cannot_be_read_are_named(
    name: str, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_config({**find_config(name), **change})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_key_value_heads": 7}, "heads 32; num_key_value_heads 7 does not divide them"),
        ({"mlp_only_layers": 5}, "mlp_only_layers 5; it must be a list"),
        ({"partial_rotary_factor": "x"}, "partial_rotary_factor 'x'; it must be above 0"),
        ({"rope_scaling": {"partial_rotary_factor": 2.0}}, "partial_rotary_factor 2.0; it must"),
    ],
)
def test_attention_that_cannot_be_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_config(find_config("qwen3_30b_a3b") | change)
    assert sentence in str(caught.value)
