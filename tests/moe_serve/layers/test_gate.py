"""The gates against transformers' routers, on float32 and bfloat16 tokens."""

from typing import Any

import pytest
import torch
from moe_kernels.reference import ReferenceLinear
from transformers import DeepseekV2Config, DeepseekV3Config, MixtralConfig, Qwen3MoeConfig
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from moe_serve.layers.gate import Gate, GroupLimit, SigmoidGate, SoftmaxGate
from moe_serve.layers.linear import LinearLayer

NUM_TOKENS, WIDTH, NUM_EXPERTS, NUM_CHOSEN = 40, 32, 16, 4


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(NUM_EXPERTS, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def correction() -> torch.Tensor:
    return torch.rand(NUM_EXPERTS, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.fixture
def logits(weight: torch.Tensor) -> LinearLayer:
    return LinearLayer(ReferenceLinear(), weight)


def check(gate: Gate, router: Any, weight: torch.Tensor, dtype: torch.dtype) -> None:
    x_TD = torch.randn(NUM_TOKENS, WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.no_grad():
        router.weight.copy_(weight)
        ids_TK, weights_TK = gate(x_TD)
        _, expected_weights, expected_ids = router(x_TD)
    assert (ids_TK.dtype, weights_TK.dtype) == (torch.int64, torch.float32)
    torch.testing.assert_close(
        _by_expert(ids_TK, weights_TK), _by_expert(expected_ids, expected_weights)
    )


def _by_expert(ids_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    return torch.zeros(NUM_TOKENS, NUM_EXPERTS).scatter(1, ids_TK, weights_TK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("num_groups", [1, 4])
def test_sigmoid_gate(
    num_groups: int,
    renormalise: bool,
    dtype: torch.dtype,
    logits: LinearLayer,
    weight: torch.Tensor,
    correction: torch.Tensor,
) -> None:
    config = DeepseekV3Config(
        hidden_size=WIDTH,
        n_routed_experts=NUM_EXPERTS,
        num_experts_per_tok=NUM_CHOSEN,
        n_group=num_groups,
        topk_group=1 if num_groups == 1 else 2,
        norm_topk_prob=renormalise,
        routed_scaling_factor=2.5,
    )
    router = DeepseekV3TopkRouter(config)
    router.e_score_correction_bias.copy_(correction)
    groups = GroupLimit(num_groups, 2, 2) if num_groups > 1 else None
    gate = SigmoidGate(logits, correction, NUM_CHOSEN, renormalise, 2.5, groups)
    check(gate, router, weight, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy"])
def test_softmax_gate_of_deepseek_v2(
    method: str, dtype: torch.dtype, logits: LinearLayer, weight: torch.Tensor
) -> None:
    config = DeepseekV2Config(
        hidden_size=WIDTH,
        n_routed_experts=NUM_EXPERTS,
        num_experts_per_tok=NUM_CHOSEN,
        n_group=4,
        topk_group=2,
        topk_method=method,
        routed_scaling_factor=16.0,
    )
    groups = GroupLimit(4, 2, 1) if method == "group_limited_greedy" else None
    gate = SoftmaxGate(logits, NUM_CHOSEN, scaling=16.0, groups=groups)
    check(gate, DeepseekV2TopkRouter(config), weight, dtype)


@pytest.mark.parametrize("renormalise", [True, False])
def test_softmax_gate_of_qwen3_moe(
    renormalise: bool, logits: LinearLayer, weight: torch.Tensor
) -> None:
    config = Qwen3MoeConfig(
        hidden_size=WIDTH,
        num_experts=NUM_EXPERTS,
        num_experts_per_tok=NUM_CHOSEN,
        norm_topk_prob=renormalise,
    )
    gate = SoftmaxGate(logits, NUM_CHOSEN, renormalise)
    check(gate, Qwen3MoeTopKRouter(config), weight, torch.float32)


def test_softmax_gate_of_mixtral(logits: LinearLayer, weight: torch.Tensor) -> None:
    config = MixtralConfig(
        hidden_size=WIDTH, num_local_experts=NUM_EXPERTS, num_experts_per_tok=NUM_CHOSEN
    )
    gate = SoftmaxGate(logits, NUM_CHOSEN, renormalise=True)
    check(gate, MixtralTopKRouter(config), weight, torch.float32)
