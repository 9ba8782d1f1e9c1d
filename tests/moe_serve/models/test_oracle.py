"""Every family against transformers on the same float32 checkpoint: tokens and logits."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from quick import QUICK_FAMILIES, quick_among

NUM_NEW_TOKENS = 64
TOLERANCE = 1e-4

# Page size and prompt tokens per step.
LAYOUTS = {"whole prompts": (16, 1000), "small pages": (1, 9), "odd chunks": (8, 5)}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "kimi_k2": ("deepseek_v3", {"n_group": 1, "topk_group": 1}),
    "v3_half_rotary": ("deepseek_v3", {"rope_interleave": False}),
    "v3_biased": ("deepseek_v3", {"attention_bias": True}),
    "v3_plain_queries": ("deepseek_v3", {"q_lora_rank": None}),
    "v3_not_renormalised": ("deepseek_v3", {"norm_topk_prob": False}),
    "v3_plain_rotary": (
        "deepseek_v3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    "v2_biased_mlp": ("deepseek_v2", {"mlp_bias": True}),
    "qwen3_moe_sparse_step": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "qwen3_moe_some_dense": ("qwen3_moe", {"mlp_only_layers": [1], "norm_topk_prob": False}),
    "glm4_moe_plain": ("glm4_moe", {"use_qk_norm": False, "attention_bias": False}),
    "glm4_moe_groups": ("glm4_moe", {"n_group": 3, "topk_group": 2}),
    "mixtral_derived_head": ("mixtral", {"head_dim": None}),
    "llama_biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "llama_many_heads": ("llama", {"num_key_value_heads": 4}),
    "llama_linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "llama_dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "qwen3_yarn": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
}


# Seeds whose greedy output can tell a right model from a wrong one; 0 where not named.
SEEDS = {"qwen3": 2, "llama_biased": 2, "llama_linear": 2}


@pytest.mark.parametrize(
    ("family", "layout"),
    quick_among(
        product(FAMILIES, LAYOUTS),
        list(product(QUICK_FAMILIES, LAYOUTS)),
    ),
)
def test_family_equals_transformers(
    family: str,
    layout: str,
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
    prompts: list[list[int]],
    reference: Callable[..., Any],
) -> None:
    path = checkpoint(family, seed=SEEDS.get(family, 0))
    page_size, chunk = LAYOUTS[layout]
    tokens, logits = make_decoder(path, page_size).generate(prompts, NUM_NEW_TOKENS, chunk)
    expected_tokens, expected_logits = reference(path, prompts, NUM_NEW_TOKENS)
    assert tokens == expected_tokens
    for prompt, new, ours, theirs in zip(prompts, tokens, logits, expected_logits, strict=True):
        assert len(set(new)) >= 20
        assert (ours[len(prompt) - 1 :] - theirs).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", [*quick_among(FAMILIES), *VARIANTS])
def test_every_position_equals_transformers(
    name: str,
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
    prompts: list[list[int]],
    replay: Callable[..., list[torch.Tensor]],
) -> None:
    """Where each token is the best that transformers sees after those before it, greedy decoding
    gives the same; and no logits differ, of the prompt's positions neither."""
    family, overrides = VARIANTS.get(name, (name, {}))
    path = checkpoint(family, seed=SEEDS.get(name, 0), published_config=False, **overrides)
    tokens, logits = make_decoder(path).generate(prompts, NUM_NEW_TOKENS, chunk=20)
    sequences = [prompt + new[:-1] for prompt, new in zip(prompts, tokens, strict=True)]
    expected = replay(path, sequences)
    for prompt, new, ours, theirs in zip(prompts, tokens, logits, expected, strict=True):
        assert len(set(new)) >= 20
        assert theirs[len(prompt) - 1 :].argmax(-1).tolist() == new
        assert (ours - theirs).abs().max() < TOLERANCE
