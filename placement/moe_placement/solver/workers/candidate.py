"""A worker that fits, with what times its steps and what bounds its batch.

Shapes: P parts, N ranks, L distinct MoE layers, E experts.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.cost.step_model import StepModel
from moe_placement.cost.step_shape import StepShape
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import RequestShape
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import ExpertPlacement, Floats
from moe_placement.solver.workers.bridge import Bridge
from moe_placement.solver.workers.mixed_timer import (
    MixedTimer,
    PlacedExperts,
    other_seconds,
    placed_rows,
    token_shares,
)
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.part_split import split_experts
from moe_placement.solver.workers.placing import ExpertLoad, Surroundings, expert_problem
from moe_placement.solver.workers.room import Room
from moe_placement.solver.workers.worker import WorkerKind

# Distinct layers that stand for all while many workers are compared.
_SAMPLED_LAYERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Attributes:
    timer: of the whole worker.
    share_P: of the worker's tokens that each part has.
    limits: of the whole worker.
    is_exact: timed by a placement on its ranks, not by a split over its parts.
    """

    kind: WorkerKind
    room: Room
    timer: StepModel | MixedTimer
    share_P: Floats
    limits: ServingLimits
    is_exact: bool

    def full_batch(self, request: RequestShape) -> float:
        """Sequences that decode at once, at most."""
        return self.limits.sequences(request.held)


def make_candidate(
    context: CostContext,
    kind: WorkerKind,
    room: Room,
    load: ExpertLoad,
    request: RequestShape,
    constraints: Constraints,
) -> Candidate:
    """Time a worker: by the step model where its devices are alike, else with its experts split
    over its parts."""
    models = tuple(None if part.experts_only else context.step_model(part) for part in kind.parts)
    first = models[0]
    if not kind.is_mixed and first is not None:
        share_P = np.ones(1)
        limits = _limits(kind, room, share_P, constraints)
        return Candidate(kind, room, first, share_P, limits, True)
    groups_P = np.array([part.num_attention_groups for part in kind.parts], float)
    batch = _limits(kind, room, groups_P / groups_P.sum(), constraints).sequences(request.held)
    share_P = token_shares(models, groups_P, request.step(0.0, batch))
    limits = _limits(kind, room, share_P, constraints)
    tokens = limits.sequences(request.held) * request.tokens_per_step
    experts = _split(context, kind, room, load.sample(_SAMPLED_LAYERS), tokens)
    mass_LP = experts.mass_of_parts(np.arange(len(kind.parts)))
    timer = MixedTimer(models, share_P, experts, Bridge.of(context, kind.parts), mass_LP)
    return Candidate(kind, room, timer, share_P, limits, False)


def place_candidate(
    context: CostContext, candidate: Candidate, load: ExpertLoad, placement: ExpertPlacement
) -> Candidate:
    """The same worker timed by a placement of its experts on its ranks."""
    kind, timer = candidate.kind, candidate.timer
    if not isinstance(timer, MixedTimer):
        return candidate
    experts = _experts(
        context,
        kind,
        load,
        placed_rows(placement, load.share_LE),
        placement.rank_LS,
        np.ones(kind.num_devices),
        rank_costs(context, kind),
    )
    mass_LP = experts.mass_of_parts(part_of_ranks(kind))
    placed = MixedTimer(timer.models, timer.share_P, experts, timer.bridge, mass_LP)
    return Candidate(
        kind, candidate.room, placed, candidate.share_P, candidate.limits, is_exact=True
    )


def other_step_seconds(candidate: Candidate, shape: StepShape) -> float:
    """Seconds of a step without its experts and without what its link carries for each token."""
    timer = candidate.timer
    if isinstance(timer, MixedTimer):
        return max(other_seconds(timer.models, timer.share_P, shape)) + timer.latency
    parts = timer.parts(shape)
    carried = parts["exchange"] - timer.price.exchange_fixed
    return sum(parts.values()) - parts["experts"] - carried


def part_of_ranks(kind: WorkerKind) -> np.ndarray:
    """The part of each rank of a worker; (N,)."""
    return np.repeat(np.arange(len(kind.parts)), [part.num_devices for part in kind.parts])


def _split(
    context: CostContext, kind: WorkerKind, room: Room, load: ExpertLoad, tokens: float
) -> PlacedExperts:
    costs = rank_costs(context, kind)
    size_P = np.array([part.num_devices for part in kind.parts], float)
    first_P = (np.cumsum(size_P) - size_P).astype(int)
    costs_P = RankCosts(
        costs.fixed_PN[:, first_P],
        costs.per_read_PN[:, first_P],
        costs.per_row_PN[:, first_P],
        np.arange(len(size_P)),
    )
    rows_LE = load.share_LE * (tokens * context.spec.num_experts_per_token)
    holder_LE = split_experts(costs_P, size_P, size_P * np.array(room.slots), rows_LE)
    return _experts(context, kind, load, load.share_LE, holder_LE, size_P, costs_P)


def _experts(
    context: CostContext,
    kind: WorkerKind,
    load: ExpertLoad,
    rows_LS: Floats,
    rank_LS: np.ndarray,
    ranks_N: Floats,
    costs: RankCosts,
) -> PlacedExperts:
    return PlacedExperts(
        rows_LS,
        rank_LS,
        ranks_N,
        load.times_L,
        costs,
        context.spec.num_experts_per_token,
        context.popularity_shape(kind.parts[0]),
        context.fullest_rows(kind.parts[0], kind.num_devices),
    )


def rank_costs(context: CostContext, kind: WorkerKind) -> RankCosts:
    """Of every rank, without the link, which the bridge prices."""
    nothing_P = np.zeros(len(kind.parts))
    none = ExpertLoad(np.zeros((1, context.spec.num_experts)), np.ones(1), np.zeros(1, np.int64))
    around = Surroundings.alone(kind.num_devices)
    slots = (0,) * len(kind.parts)
    return RankCosts.of(expert_problem(context, kind, slots, none, 0.0, nothing_P, around, 0))


def _limits(
    kind: WorkerKind, room: Room, share_P: Floats, constraints: Constraints
) -> ServingLimits:
    """The part whose cache is full first bounds the worker's."""
    held = [
        part.num_attention_groups * tokens / share
        for part, tokens, share in zip(kind.parts, room.cache_tokens, share_P.tolist(), strict=True)
        if share > 0
    ]
    groups = kind.num_attention_groups
    return ServingLimits(
        max_tokens_per_step=float(constraints.max_tokens_per_step * groups),
        max_sequences=float(constraints.max_sequences * groups),
        kv_tokens=float(min(held)),
        num_groups=float(groups),
    )
