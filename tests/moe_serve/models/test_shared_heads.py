"""Heads that ranks can share, and those that they cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from moe_comm.shard import Shard
from moe_kernels.table import select_ops

from moe_serve.config.heads import check_heads
from moe_serve.errors import UnsupportedError
from moe_serve.layers.context import GroupedCacheSpec, LatentCacheSpec
from moe_serve.models.registry import build_experts_model, build_model
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader


def load(path: Path, shard: Shard, build: Callable[..., Any] = build_model) -> Any:
    checkpoint = Checkpoint.open(path)
    ops = select_ops("cpu", "float32", deterministic=False)
    experts = {layer: [0] for layer in range(8)}
    loader = WeightLoader(checkpoint, ops, torch.device("cpu"), torch.float32, experts, shard=shard)
    return build(checkpoint.config, loader)


@pytest.mark.parametrize(
    ("degree", "heads", "kv_heads"), [(1, 5, 5), (2, 4, 2), (4, 4, 2), (8, 128, 1), (8, 64, 4)]
)
def test_heads_that_come_out_even(degree: int, heads: int, kv_heads: int) -> None:
    check_heads(degree, heads, kv_heads)


@pytest.mark.parametrize(
    ("degree", "heads", "kv_heads", "sentence"),
    [
        (3, 4, 2, "3 ranks cannot share 4 attention heads evenly"),
        (3, 12, 4, "3 ranks cannot share 4 key-value heads evenly"),
        (4, 12, 6, "4 ranks cannot share 6 key-value heads evenly"),
    ],
)
def test_heads_that_do_not_are_refused(
    degree: int, heads: int, kv_heads: int, sentence: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"attention.tensor_parallel: {sentence}"):
        check_heads(degree, heads, kv_heads)


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_a_model_that_does_not_come_out_even_is_refused(
    family: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(UnsupportedError, match="3 ranks cannot share 4 attention heads"):
        load(checkpoint(family), Shard(1, 3))


@pytest.mark.parametrize(("count", "num_kv_heads"), [(1, 2), (2, 1), (4, 1)])
def test_the_cache_is_of_the_members_heads(
    count: int, num_kv_heads: int, checkpoint: Callable[..., Path]
) -> None:
    grouped = load(checkpoint("llama"), Shard(count - 1, count))
    assert grouped.cache_specs == (GroupedCacheSpec(num_kv_heads, 32),) * 3
    latent = load(checkpoint("deepseek_v3"), Shard(count - 1, count))
    assert latent.cache_specs == (LatentCacheSpec(32 + 16),) * 3


def test_a_dense_model_has_no_experts_alone(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedError, match="LlamaForCausalLM has no experts"):
        load(checkpoint("llama"), Shard(), build_experts_model)
