"""The Plan: which expert replicas live on which rank, with routing weights, and who does what.

A frozen value that solver, CLI and engine share; the engine runs nothing that is not in it.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["prefill", "decode", "both", "experts"]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Like devices under one config entry.

    Attributes:
        ranks: plan ranks, stable for the life of the deployment.
        weight_format: float32, bfloat16, float16 (later fp8, int8, int4).
    """

    name: str
    device: str
    ranks: tuple[int, ...]
    role: Role = "both"
    weight_format: str = "bfloat16"
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One MoE layer's placement.

    Attributes:
        slots: for each plan rank, the expert in each of its slots, in slot order; counts may
            differ between ranks and a rank may have none.
        weights: same shape; the share of that expert's tokens that this replica takes. The
            weights of an expert's replicas sum to 1.
    """

    slots: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole deployment of one model.

    Attributes:
        epoch: grows by one with every plan that replaces another.
        layers: by the model's layer index; dense layers are absent.
    """

    model: str
    num_experts: int
    pools: tuple[PoolPlan, ...]
    layers: dict[int, LayerPlan]
    epoch: int = 0
