"""The expert solver's question about one EP group of a config: what its ranks cost and hold.

Shapes: L MoE layers, E experts, N ranks of the group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.memory.rank_memory import RankMemory
from moe_placement.memory.rank_weights import expert_bytes
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan
from moe_placement.solver.problem import ExpertProblem, Floats, Ints

from moe_serve.config.tree import Config, LinkConfig

_SUM_BYTES = 4
# Rows alone count, as on devices that are equal and of which nothing else is known.
_BY_ROWS = ExpertCurve((Plane(fixed=0.0, per_byte=0.0, per_flop=1.0),))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRanks:
    """The ranks of one EP group, in ascending order.

    Attributes:
        pool_N: the pool of each.
        memory_N: what each must hold, whatever experts it gets.
        hardware: by pool; empty where no pool names any.
    """

    ranks: Sequence[int]
    pool_N: Sequence[PoolPlan]
    memory_N: Sequence[RankMemory]
    hardware: Mapping[str, DeviceSpec]

    @property
    def pools(self) -> tuple[PoolPlan, ...]:
        return tuple(dict.fromkeys(self.pool_N))


def expert_problem(
    config: Config, spec: ModelSpec, group: GroupRanks, shares_LE: Floats, activation_bytes: int
) -> ExpertProblem:
    """Place as many replicas as the config's redundancy allows, for full decode steps.

    Args:
        shares_LE: of each layer's rows; each row sums to 1.
    """
    pools = group.pools
    rows = step_tokens(config, group) * spec.num_experts_per_token
    curves, curve_P, bytes_P = _curves(spec, pools, group.hardware)
    pool_N = np.array([pools.index(pool) for pool in group.pool_N])
    wanted = floor(spec.num_experts * (1 + config.placement.redundancy))
    slots_N = _slots(config, spec, group, bytes_P[pool_N], wanted)
    nothing_N = np.zeros(len(pool_N), np.int64)
    return ExpertProblem(
        rows_LE=shares_LE * rows,
        flops_per_row=2.0 * spec.mlp.expert if group.hardware else 1.0,
        expert_bytes_N=bytes_P[pool_N],
        slots_N=slots_N,
        curves=curves,
        curve_N=curve_P[pool_N],
        row_seconds_N=_row_seconds(config, spec, pools, activation_bytes)[pool_N],
        num_slots=min(wanted, int(slots_N.sum())),
        node_N=nothing_N,
        domain_N=nothing_N,
    )


def step_tokens(config: Config, group: GroupRanks) -> int:
    """Tokens of one decode step in which every attention group is full."""
    limits = config.scheduler
    each = min(limits.max_sequences, limits.max_tokens_per_step)
    heads = sum(1 / pool.tensor_parallel for pool in group.pool_N if pool.role != "experts")
    return max(1, round(heads)) * each


def _curves(
    spec: ModelSpec, pools: Sequence[PoolPlan], hardware: Mapping[str, DeviceSpec]
) -> tuple[tuple[ExpertCurve, ...], Ints, Floats]:
    """Distinct curves, which of them each pool has, and bytes of an expert in each pool."""
    kept = [expert_bytes(spec, pool.weight_format, pool.device) for pool in pools]
    if not hardware:
        return (_BY_ROWS,), np.zeros(len(pools), np.int64), np.ones(len(pools))
    curve_P = [expert_curve(hardware[pool.name], pool.weight_format) for pool in pools]
    distinct = tuple(dict.fromkeys(curve_P))
    return distinct, np.array([distinct.index(curve) for curve in curve_P]), np.array(kept, float)


def _slots(
    config: Config, spec: ModelSpec, group: GroupRanks, bytes_N: Floats, wanted: int
) -> Ints:
    """Slots of each layer that fit beside all else and the cache of one longest sequence; where
    nothing is known of the ranks, as many in all of them."""
    if not group.hardware:
        each = min(spec.num_experts, ceil(wanted / len(group.ranks)))
        return np.full(len(group.ranks), each, np.int64)
    return np.array(
        [
            min(spec.num_experts, _room(config, memory) // (each * len(spec.moe_layers)))
            for memory, each in zip(group.memory_N, bytes_N, strict=True)
        ],
        np.int64,
    )


def _room(config: Config, memory: RankMemory) -> int:
    fewest = ceil(config.models[0].max_context / memory.page_size)
    pages = memory.num_pages if memory.pages_fixed else fewest
    taken = memory.other_weights + memory.working_space + memory.moving + pages * memory.page_bytes
    return max(0, memory.budget - taken)


def _row_seconds(
    config: Config, spec: ModelSpec, pools: Sequence[PoolPlan], activation_bytes: int
) -> Floats:
    """Link seconds of one row that a rank of each pool receives: those of other pools' tokens,
    out and back, by the share of tokens that they have."""
    row_bytes = spec.hidden_size * (activation_bytes + _SUM_BYTES)
    homes = [(pool.name, _num_homes(pool)) for pool in pools]
    total = sum(count for _, count in homes)
    return np.array(
        [
            sum(
                count / total * row_bytes / link.bandwidth
                for name, count in homes
                for link in find_links(config.links, name, pool.name)
            )
            for pool in pools
        ]
    )


def _num_homes(pool: PoolPlan) -> float:
    return 0.0 if pool.role == "experts" else len(pool.ranks) / pool.tensor_parallel


def find_links(links: Sequence[LinkConfig], one: str, other: str) -> list[LinkConfig]:
    """The link between two pools; none where they are the same pool."""
    return [link for link in links if one != other and set(link.between) == {one, other}]
