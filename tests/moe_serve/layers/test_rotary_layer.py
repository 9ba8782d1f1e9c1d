"""Rotary embedding against transformers' own frequencies and rotation."""

from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_interleave,
    yarn_apply_mscale,
)

from moe_serve.layers.rotary import rotary_table
from moe_serve.layers.rotary_frequencies import RotaryShape, frequencies, yarn_softmax_factor
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": YARN | {"original_max_position_embeddings": 4096},
    "yarn of DeepSeek-V3": YARN
    | {"original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn of DeepSeek-V2": YARN
    | {"original_max_position_embeddings": 4096, "mscale": 0.707, "mscale_all_dim": 0.5},
    "yarn, told": YARN
    | {
        "original_max_position_embeddings": 4096,
        "attention_factor": 1.3,
        "beta_fast": 16,
        "beta_slow": 2,
        "truncate": False,
    },
    "yarn of the whole context": YARN,
}


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=4,
        max_position_embeddings=131072,
        rope_parameters=dict(SCALINGS[name]),
    )
    kind = SCALINGS[name]["rope_type"]
    expected, expected_scale = ROPE_INIT_FUNCTIONS[kind](config)
    settings = Settings({"max_position_embeddings": 131072, "rope_parameters": SCALINGS[name]})
    ours, scale = frequencies(rotary_shape(settings, 128))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    assert scale == pytest.approx(expected_scale)


@pytest.mark.parametrize("name", SCALINGS)
def test_softmax_factor_is_that_of_transformers(name: str) -> None:
    settings = Settings({"max_position_embeddings": 131072, "rope_parameters": SCALINGS[name]})
    config = DeepseekV3Config(max_position_embeddings=131072, rope_parameters=dict(SCALINGS[name]))
    expected = yarn_apply_mscale(config.rope_parameters, 1.0)
    assert yarn_softmax_factor(rotary_shape(settings, 64)) == pytest.approx(expected)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [16, 32])
def test_products_of_turned_heads_are_those_of_transformers(interleaved: bool, width: int) -> None:
    """Only products of queries and keys matter: pairs may stay where they are."""
    shape = RotaryShape(width, 1e4, 64, interleaved=interleaved)
    q_THd, k_THd = torch.randn(2, 20, 3, 32, generator=torch.Generator().manual_seed(0))
    positions = torch.randint(64, (20,), generator=torch.Generator().manual_seed(1))
    angles = torch.outer(positions.float(), frequencies(shape)[0]).repeat(1, 2)
    apply = apply_rotary_pos_emb_interleave if interleaved else apply_rotary_pos_emb
    q, k = apply(q_THd[..., :width], k_THd[..., :width], angles.cos(), angles.sin())
    q, k = (
        torch.cat((turned, whole[..., width:]), -1) for turned, whole in ((q, q_THd), (k, k_THd))
    )
    rotation = rotary_table(shape, torch.float32, torch.device("cpu")).at(positions)
    ours = torch.einsum("thd,shd->hts", rotation(q_THd.clone()), rotation(k_THd.clone()))
    expected = torch.einsum("thd,shd->hts", q, k)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
