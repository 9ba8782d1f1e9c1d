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
from moe_placement.plan import Plan, PoolPlan
from moe_placement.solver.problem import Floats

from moe_serve.config.tree import LinkConfig
from moe_serve.control.planning.expert_problem import find_links
from moe_serve.control.planning.pace import pace_of

# Rows cross links as float32, out and back.
_ELEMENT_BYTES = 4
_CONTEXT = 16


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step, none of which overlap.

    Attributes:
        experts: of the slowest rank's in each layer, added up over layers.
        attention: of the slowest rank's, with all else of the model that is not experts.
        links: that rows take between pools.
    """

    experts: float
    attention: float
    links: float

    @property
    def others(self) -> float:
        """What no placement of experts changes."""
        return self.attention + self.links

    @property
    def total(self) -> float:
        return self.experts + self.others


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a plan runs on.

    Attributes:
        hardware: by pool.
    """

    spec: ModelSpec
    hardware: Mapping[str, DeviceSpec]
    links: Sequence[LinkConfig]


def step_cost(deployed: Deployed, plan: Plan, shares_LE: Floats, num_tokens: int) -> StepCost:
    """A decode step of `num_tokens`, all of whose tokens are shared by the pools with attention.

    Args:
        shares_LE: of each layer's rows; each row sums to 1.
    """
    spec = deployed.spec
    rows_LE = shares_LE * num_tokens * spec.num_experts_per_token
    experts = sum(
        max(_layer_seconds(deployed, plan, layer, rank, rows_E) for rank in range(plan.num_ranks))
        for layer, rows_E in zip(spec.moe_layers, rows_LE, strict=True)
    )
    homes = [pool for pool in plan.pools if pool.role != "experts"]
    each = num_tokens // sum(len(pool.ranks) for pool in homes)
    attention = max(_attention_seconds(deployed, pool, each) for pool in homes)
    return StepCost(experts, attention, _link_seconds(deployed, plan, homes, each))


def _attention_seconds(deployed: Deployed, pool: PoolPlan, num_tokens: int) -> float:
    work = AttentionWork(
        first_layer=0,
        end_layer=None,
        num_decoding=num_tokens,
        decode_context=num_tokens * _CONTEXT,
    )
    device = deployed.hardware[pool.name]
    return pace_of(device, deployed.spec, pool, pool.weight_format, {})(work)


def _link_seconds(
    deployed: Deployed, plan: Plan, homes: Sequence[PoolPlan], num_tokens: int
) -> float:
    """Of the slowest link, out and back in every layer; with several experts for each token, nearly
    all tokens cross to all pools."""
    num_bytes = num_tokens * deployed.spec.hidden_size * _ELEMENT_BYTES
    one_way = max(
        (
            link.latency + num_bytes / link.bandwidth
            for home in homes
            for pool in plan.pools
            for link in find_links(deployed.links, home.name, pool.name)
        ),
        default=0.0,
    )
    return 2 * len(deployed.spec.moe_layers) * one_way


def _layer_seconds(deployed: Deployed, plan: Plan, layer: int, rank: int, rows_E: Floats) -> float:
    """An expert with `rows` rows in the mean is read with probability 1 - exp(-rows)."""
    placed, spec = plan.layers[layer], deployed.spec
    if not placed.slots[rank]:
        return 0.0
    rows = np.array(placed.weights[rank]) * rows_E[list(placed.slots[rank])]
    pool = plan.pool_of(rank)
    curve = expert_curve(deployed.hardware[pool.name], pool.weight_format)
    num_bytes = float(-np.expm1(-rows).sum()) * spec.expert_bytes(pool.weight_format)
    return curve.seconds(num_bytes, 2.0 * spec.mlp.expert * float(rows.sum()))
