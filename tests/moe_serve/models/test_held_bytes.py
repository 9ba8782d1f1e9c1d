"""What the planner prices is what a model holds once its weights are packed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from held_bytes import held_bytes, tensors_in
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_memory import RankMemory, rank_memory
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.weights.config_files import read_config

# Whole vectors, so that packing fills nothing up.
ROUND = {"hidden_size": 128, "intermediate_size": 128, "vocab_size": 384}
LATENT = ROUND | {
    "moe_intermediate_size": 64,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v3", LATENT | {"q_lora_rank": 64, "n_routed_experts": 64}),
    ("deepseek_v2", LATENT | {"n_routed_experts": 64, "n_shared_experts": 2}),
    ("mixtral", ROUND | {"intermediate_size": 64, "num_local_experts": 64}),
    ("llama", ROUND | {"tie_word_embeddings": False}),
    ("llama", ROUND | {"tie_word_embeddings": True}),
]


def price(path: Path, weight_format: str, page_size: int) -> RankMemory:
    spec = ModelSpec.from_config(read_config(path))
    pool = PoolPlan("host", "cpu", (0,), "both", weight_format)
    return rank_memory(
        spec,
        equal_split("small", spec.num_experts, spec.moe_layers, (pool,)),
        0,
        activation_bytes=getattr(torch, weight_format).itemsize,
        max_tokens_per_step=16,
        page_size=page_size,
        num_pages=None,
        device_bytes=1 << 30,
        memory_fraction=0.9,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "changes"), CASES)
def test_weights_and_pages_are_priced_as_they_are_held(
    family: str,
    changes: dict[str, Any],
    dtype: torch.dtype,
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
) -> None:
    path = checkpoint(family, dtype=dtype, **changes)
    decoder = make_decoder(path, dtype=dtype)
    priced = price(path, str(dtype).removeprefix("torch."), decoder.page_size)
    assert priced.weights == held_bytes(tensors_in(decoder.model))
    num_pages = len(next(tensors_in(decoder.caches)))
    assert priced.page_bytes * num_pages == held_bytes(tensors_in(decoder.caches))
