"""What the planner prices is what a model holds once its weights are packed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from held_bytes import held_bytes, tensors_in
from moe_comm.shard import Shard
from moe_kernels.table import select_ops
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_memory import RankMemory, rank_memory
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PoolPlan

from moe_serve.models.registry import build_model
from moe_serve.step.cache import allocate_cache
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.config_files import read_config
from moe_serve.weights.loader import WeightLoader

# Whole vectors, so that packing fills nothing up.
ROUND = {"hidden_size": 128, "intermediate_size": 128, "vocab_size": 384}
WIDE = {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 512, "head_dim": 64}
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


def plan_of(path: Path, weight_format: str, tensor_parallel: int = 1) -> Plan:
    spec = ModelSpec.from_config(read_config(path))
    ranks = tuple(range(tensor_parallel))
    pool = PoolPlan("host", "cpu", ranks, "both", weight_format, tensor_parallel=tensor_parallel)
    return equal_split("small", spec.num_experts, spec.moe_layers, (pool,))


def price(path: Path, plan: Plan, page_size: int, rank: int = 0) -> RankMemory:
    return rank_memory(
        ModelSpec.from_config(read_config(path)),
        plan,
        rank,
        activation_bytes=getattr(torch, plan.pools[0].weight_format).itemsize,
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
    plan = plan_of(path, str(dtype).removeprefix("torch."))
    priced = price(path, plan, decoder.page_size)
    assert priced.weights == held_bytes(tensors_in(decoder.model))
    num_pages = len(next(tensors_in(decoder.caches)))
    assert priced.page_bytes * num_pages == held_bytes(tensors_in(decoder.caches))


@pytest.mark.parametrize(
    ("family", "changes", "tensor_parallel"),
    [*((*case, 2) for case in CASES), ("llama", WIDE, 4)],
)
def test_shares_are_priced_as_they_are_held(
    family: str, changes: dict[str, Any], tensor_parallel: int, checkpoint: Callable[..., Path]
) -> None:
    """Of two key-value heads four ranks hold each twice."""
    path = checkpoint(family, **changes)
    plan = plan_of(path, "float32", tensor_parallel)
    for rank in range(tensor_parallel):
        opened = Checkpoint.open(path)
        loader = WeightLoader(
            opened,
            select_ops("cpu", "float32", deterministic=False),
            torch.device("cpu"),
            torch.float32,
            {layer: placed.slots[rank] for layer, placed in plan.layers.items()},
            shard=Shard(rank, tensor_parallel),
        )
        model = build_model(opened.config, loader)
        priced = price(path, plan, 16, rank)
        assert priced.weights == held_bytes(tensors_in(model))
        caches = allocate_cache(model.cache_specs, 3, 16, torch.float32, torch.device("cpu"))
        assert priced.page_bytes * 3 == held_bytes(tensors_in(caches))
