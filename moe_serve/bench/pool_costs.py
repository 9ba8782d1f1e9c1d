"""What the planner says that a step of a plan costs, and what no plan can cost less than.

Shapes: L MoE layers, E experts, N ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from moe_devices.work import AttentionWork
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device import DeviceSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan
from moe_placement.solver.problem import Floats

from moe_serve.control.pace import pace_of


@dataclass(frozen=True, slots=True)
class StepCost:
    """Attributes:
    experts: seconds of the slowest rank's experts, added up over layers.
    others: seconds of the slowest rank's attention and all else that is declared of it.
    """

    experts: float
    others: float

    @property
    def total(self) -> float:
        return self.experts + self.others


def step_cost(
    spec: ModelSpec,
    plan: Plan,
    hardware: Mapping[str, DeviceSpec],
    shares_LE: Floats,
    num_tokens: int,
) -> StepCost:
    """A decode step of `num_tokens`, all of whose tokens are shared by the pools with attention.

    Args:
        hardware: by pool.
        shares_LE: of each layer's rows; each row sums to 1.
    """
    rows_LE = shares_LE * num_tokens * spec.num_experts_per_token
    experts = sum(
        max(_layer_seconds(spec, plan, hardware, layer, rank, rows_E) for rank in _ranks(plan))
        for layer, rows_E in zip(spec.moe_layers, rows_LE, strict=True)
    )
    homes = [pool for pool in plan.pools if pool.role != "experts"]
    each = num_tokens // sum(len(pool.ranks) for pool in homes)
    work = AttentionWork(first_layer=0, end_layer=None, num_decoding=each, decode_context=each * 16)
    others = max(
        pace_of(hardware[pool.name], spec, pool, pool.weight_format, {})(work) for pool in homes
    )
    return StepCost(experts, others)


def _ranks(plan: Plan) -> Sequence[int]:
    return range(plan.num_ranks)


def _layer_seconds(
    spec: ModelSpec,
    plan: Plan,
    hardware: Mapping[str, DeviceSpec],
    layer: int,
    rank: int,
    rows_E: Floats,
) -> float:
    """An expert with `rows` rows in the mean is read with probability 1 - exp(-rows)."""
    placed = plan.layers[layer]
    if not placed.slots[rank]:
        return 0.0
    rows = np.array(placed.weights[rank]) * rows_E[list(placed.slots[rank])]
    pool = plan.pool_of(rank)
    curve = expert_curve(hardware[pool.name], pool.weight_format)
    num_bytes = float(-np.expm1(-rows).sum()) * spec.expert_bytes(pool.weight_format)
    return curve.seconds(num_bytes, 2.0 * spec.mlp.expert * float(rows.sum()))
