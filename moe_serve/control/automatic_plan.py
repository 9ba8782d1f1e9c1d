"""The plan that `placement.plan: auto` stands for: an equal split, or one made for a load trace."""

from collections.abc import Sequence
from math import floor
from pathlib import Path

import numpy as np
from moe_placement.equal_split import equal_split
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.load.trace import ExpertLoad, LoadError
from moe_placement.load.trace_file import load
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError, PoolPlan
from moe_placement.solver.place import place_experts
from moe_placement.solver.problem import ExpertProblem

from moe_serve.config.tree import PlacementConfig

# Rows of one step, which on equal devices does not matter for where experts go.
_TOKENS = 4096


def automatic_plan(
    name: str, spec: ModelSpec, pools: Sequence[PoolPlan], placement: PlacementConfig
) -> Plan:
    """The same on every rank that reads the same trace.

    With a trace, experts are spread over ranks that are taken for equal so that each has as many
    rows as the others; `redundancy` lets busy experts have replicas.

    Raises:
        PlanError: a trace that cannot be read, or is of another model.
    """
    if not placement.load or not spec.num_experts:
        return equal_split(name, spec.num_experts, spec.moe_layers, pools)
    try:
        problem = _problem(_read(placement.load, spec), spec, pools, placement.redundancy)
    except LoadError as error:
        raise PlanError(str(error)) from error
    num_ranks = sum(len(pool.ranks) for pool in pools)
    layers = place_experts(problem).placement.layer_plans(spec.moe_layers, num_ranks)
    plan = Plan(name, spec.num_experts, tuple(pools), layers)
    plan.validate()
    return plan


def _read(path: str, spec: ModelSpec) -> ExpertLoad:
    trace = load(Path(path))
    if (trace.layers, trace.num_experts) != (spec.moe_layers, spec.num_experts):
        raise LoadError(
            f"load file {path}: has {trace.num_layers} layers of {trace.num_experts} experts, the "
            f"model has {len(spec.moe_layers)} of {spec.num_experts}; record it with this model"
        )
    return trace


def _problem(
    trace: ExpertLoad, spec: ModelSpec, pools: Sequence[PoolPlan], redundancy: float
) -> ExpertProblem:
    num_ranks = sum(len(pool.ranks) for pool in pools)
    num_slots = floor(spec.num_experts * (1 + redundancy))
    each = min(spec.num_experts, -(-num_slots // num_ranks))
    none_N = np.zeros(num_ranks, np.int64)
    return ExpertProblem(
        rows_LE=trace.rows_LE(_TOKENS, spec.num_experts_per_token),
        flops_per_row=1.0,
        expert_bytes_N=np.ones(num_ranks),
        slots_N=np.full(num_ranks, each, np.int64),
        curves=(ExpertCurve((Plane(fixed=0.0, per_byte=0.0, per_flop=1.0),)),),
        curve_N=none_N,
        row_seconds_N=np.zeros(num_ranks),
        num_slots=min(num_slots, each * num_ranks),
        node_N=none_N,
        domain_N=none_N,
    )
