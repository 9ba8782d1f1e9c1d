"""What the planner prices is what a model holds whose weights are narrower than activations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from held_bytes import held_bytes, tensors_in
from moe_kernels.cpu.int8 import has_vnni
from moe_kernels.table import select_ops
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_weights import rank_weights
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.layers.latent_attention import LatentAttention
from moe_serve.models.model import Model
from moe_serve.models.registry import build_model
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

CPU = torch.device("cpu")
# Whole vectors, and whole groups of experts.
ROUND = {"hidden_size": 128, "intermediate_size": 128, "vocab_size": 384}
LATENT = {
    "moe_intermediate_size": 64,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "q_lora_rank": 64,
    "n_routed_experts": 64,
}
CASES = [("deepseek_v3", ROUND | LATENT), ("llama", ROUND | {"tie_word_embeddings": True})]
# The planner takes one scale for so many elements, whatever the row.
CHANNEL = 4096


def build_and_price(path: Path, weights: str, dtype: str) -> tuple[Model, int]:
    stored = Checkpoint.open(path)
    spec = ModelSpec.from_config(stored.config)
    pool = PoolPlan("host", "cpu", (0,), "both", weights)
    plan = equal_split("small", spec.num_experts, spec.moe_layers, (pool,))
    held = {layer: placed.slots[0] for layer, placed in plan.layers.items()}
    ops, numbers = select_ops("cpu", weights, dtype=dtype), getattr(torch, dtype)
    model = build_model(stored.config, WeightLoader(stored, ops, CPU, numbers, held))
    return model, sum(rank_weights(spec, pool, plan.num_slots(0), numbers.itemsize).values())


def absorbed_elements(model: Model) -> int:
    """Of the matrices that are multiplied head by head, which stay as wide as activations."""
    attentions = [layer.attention for layer in model.layers]
    heads = [
        tensor
        for attention in attentions
        if isinstance(attention, LatentAttention)
        for tensor in tensors_in((attention.key_absorbed.packed, attention.value_absorbed.packed))
    ]
    return sum(tensor.numel() for tensor in heads)


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_narrower_floats(
    family: str, changes: dict[str, Any], checkpoint: Callable[..., Path]
) -> None:
    model, priced = build_and_price(checkpoint(family, **changes), "bfloat16", "float32")
    unpriced = absorbed_elements(model) * (4 - 2)
    assert held_bytes(tensors_in(model)) == priced + unpriced


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "changes"), CASES)
def test_int8_but_for_the_scales(
    family: str, changes: dict[str, Any], dtype: str, checkpoint: Callable[..., Path]
) -> None:
    """A row has a scale and four bytes of oneDNN's, a planned one a scale for 4096 elements; and
    absorbed matrices are planned in int8."""
    model, priced = build_and_price(checkpoint(family, **changes), "int8", dtype)
    tensors = list(tensors_in(model))
    packed = [tensor for tensor in tensors if tensor.dtype == torch.int8]
    num_rows = sum((torch.ops.mkldnn._nbytes(one) - one.numel()) // 4 for one in packed)
    num_elements = sum(one.numel() for one in packed)
    num_absorbed = absorbed_elements(model)
    unpriced = 8 * num_rows + num_absorbed * (getattr(torch, dtype).itemsize - 1)
    assert num_rows > 500
    planned_scales = 4 * (num_elements + num_absorbed) / CHANNEL
    assert held_bytes(tensors) - unpriced == pytest.approx(priced - planned_scales, abs=40)
