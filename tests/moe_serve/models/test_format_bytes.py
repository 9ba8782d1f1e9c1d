"""What the planner prices is what a model holds whose weights are narrower than activations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from held_bytes import held_bytes, tensors_in
from moe_comm.shard import Shard
from moe_kernels.cpu.int8 import has_vnni
from moe_kernels.table import select_ops
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_weights import rank_weights
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.models.model import Model
from moe_serve.models.registry import build_model
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

CPU = torch.device("cpu")
# Whole vectors, and whole groups of experts.
ROUND = {"hidden_size": 128, "intermediate_size": 128, "vocab_size": 384}
LATENT = {
    "moe_intermediate_size": 128,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": 64,
}
CASES = [
    ("deepseek_v3", ROUND | LATENT | {"q_lora_rank": 64}),
    ("deepseek_v2", ROUND | LATENT),
    (
        "glm4_moe",
        ROUND | {"moe_intermediate_size": 128, "n_routed_experts": 64, "use_qk_norm": False},
    ),
    ("llama", ROUND | {"tie_word_embeddings": True}),
]
BIASED = ("llama", ROUND | {"attention_bias": True, "mlp_bias": True})
# Kernels have a number of their own each.
ZEROS = 16


def build_and_price(path: Path, weights: str, dtype: str, degree: int = 1) -> tuple[Model, int]:
    """The first of so many ranks that share attention, and have all experts each."""
    stored = Checkpoint.open(path)
    spec = ModelSpec.from_config(stored.config)
    pool = PoolPlan("host", "cpu", tuple(range(degree)), "both", weights, degree)
    plan = equal_split("small", spec.num_experts, spec.moe_layers, (pool,))
    held = {layer: placed.slots[0] for layer, placed in plan.layers.items()}
    ops, numbers = select_ops("cpu", weights, dtype=dtype), getattr(torch, dtype)
    loader = WeightLoader(stored, ops, CPU, numbers, held, shard=Shard(0, degree))
    model = build_model(stored.config, loader)
    return model, sum(rank_weights(spec, pool, plan.num_slots(0), numbers.itemsize).values())


@pytest.mark.parametrize(("family", "changes"), [*CASES, BIASED])
def test_narrower_floats(
    family: str, changes: dict[str, Any], checkpoint: Callable[..., Path]
) -> None:
    model, priced = build_and_price(checkpoint(family, **changes), "bfloat16", "float32")
    assert held_bytes(tensors_in(model)) == priced


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "changes"), [*CASES, BIASED])
def test_int8(
    family: str, changes: dict[str, Any], dtype: str, checkpoint: Callable[..., Path]
) -> None:
    model, priced = build_and_price(checkpoint(family, **changes), "int8", dtype)
    assert held_bytes(tensors_in(model)) == pytest.approx(priced, abs=ZEROS)


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
@pytest.mark.parametrize(("family", "changes"), CASES)
def test_int8_of_ranks_that_share_attention(
    family: str, changes: dict[str, Any], checkpoint: Callable[..., Path]
) -> None:
    model, priced = build_and_price(checkpoint(family, **changes), "int8", "bfloat16", 2)
    assert held_bytes(tensors_in(model)) == pytest.approx(priced, abs=ZEROS)


def test_int8_that_is_multiplied_out(checkpoint: Callable[..., Path]) -> None:
    """As on devices without kernels of their own: no layout adds anything."""
    family, changes = CASES[0]
    stored = Checkpoint.open(checkpoint(family, **changes))
    spec = ModelSpec.from_config(stored.config)
    held = {layer: range(spec.num_experts) for layer in spec.moe_layers}
    ops = select_ops("cuda", "int8", dtype="bfloat16")
    model = build_model(stored.config, WeightLoader(stored, ops, CPU, torch.bfloat16, held))
    pool = PoolPlan("gpu", "cuda", (0,), "both", "int8")
    slots = len(spec.moe_layers) * spec.num_experts
    assert held_bytes(tensors_in(model)) == sum(rank_weights(spec, pool, slots, 2).values())
