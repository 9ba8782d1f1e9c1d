"""A better plan for one EP group under the load of late, and the sound plans on the way to it.

Shapes: L MoE layers, E experts, N ranks of the group.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.memory.rank_weights import expert_bytes
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan
from moe_placement.solver.moving.rebalance import MovePolicy, Rebalance, rebalance
from moe_placement.solver.pools.old_plan import placement_on
from moe_placement.solver.predicted import predicted_seconds
from moe_placement.solver.problem import (
    ExpertPlacement,
    ExpertProblem,
    Ints,
    PlacementImpossibleError,
)

from moe_serve.control.balancing.balance import LoadQuestion, Rearrangement, ServedDeployment
from moe_serve.control.balancing.move_stages import Stage, fitting_experts, move_stages
from moe_serve.control.planning.deployment import ACTIVATION_BYTES
from moe_serve.control.planning.expert_problem import GroupRanks, expert_problem

# Of the experts' seconds in a step: less is not told from chance.
_LEAST_GAIN = 0.03
# Each unit of moves that must switch together becomes a batch of its own.
_ALONE = 1.0


def rearrange(
    served: ServedDeployment,
    spec: ModelSpec,
    hardware: Mapping[str, DeviceSpec],
    question: LoadQuestion,
) -> Rearrangement:
    """The same question has the same answer.

    A new plan's gain, taken to last as many steps as its load was watched, exceeds the seconds in
    which experts are loaded; and at no stage does a rank hold more than fits.
    """
    group = _group(served, hardware, question)
    reason = ""
    for room in (_roomy, _tight):
        try:
            problem = _problem(served, spec, group, question, room)
            decision = rebalance(problem, _policy(served, group, question))
        except PlacementImpossibleError as error:
            return Rearrangement(stages=(), reason=reason or f"the experts stay: {error}")
        if not _is_worth_it(problem, decision):
            return Rearrangement(stages=(), reason=_stay(decision))
        stages, fits = move_stages(group, problem, decision)
        if fits:
            layers = _layer_plans(spec, group, question.plan, stages)
            return Rearrangement(
                stages=layers, reason=decision.reason, num_bytes=round(decision.bytes_moved)
            )
        reason = f"{decision.reason}; they stay, for while they move they would not fit"
    return Rearrangement(stages=(), reason=reason)


def _group(
    served: ServedDeployment, hardware: Mapping[str, DeviceSpec], question: LoadQuestion
) -> GroupRanks:
    ranks = sorted(set(question.plan.ep_groups()[question.group]) - set(question.lost))
    pool_N = [question.plan.pool_of(rank) for rank in ranks]
    known = {pool.name: hardware[pool.name] for pool in pool_N if pool.name in hardware}
    memory_N = [served.memories[rank] for rank in ranks]
    return GroupRanks(ranks=ranks, pool_N=pool_N, memory_N=memory_N, hardware=known)


def _problem(
    served: ServedDeployment,
    spec: ModelSpec,
    group: GroupRanks,
    question: LoadQuestion,
    room: Callable[[Ints, Ints], Ints],
) -> ExpertProblem:
    """What bring-up asks, with the rows that came, the slots that fit, and the plan in force."""
    config = served.config
    counts_LE = np.frombuffer(question.counts_LE, "<i8").reshape(len(spec.moe_layers), -1)
    shares_LE = counts_LE / counts_LE.sum(axis=1, keepdims=True)
    activation_bytes = ACTIVATION_BYTES[config.models[0].dtype]
    problem = expert_problem(config, spec, group, shares_LE, activation_bytes)
    old = placement_on(question.plan, group.ranks)
    held_LN = _held(question.plan, group.ranks)
    kept = [expert_bytes(spec, pool.weight_format, pool.device) for pool in group.pool_N]
    bytes_N = np.array(kept, np.int64)
    fits_N = fitting_experts(group, bytes_N) // len(spec.moe_layers)
    problem = replace(
        problem,
        rows_LE=counts_LE / question.num_steps,
        expert_bytes_N=bytes_N.astype(np.float64),
        slots_N=np.minimum(room(held_LN.max(axis=0), fits_N), spec.num_experts),
        num_slots=max(problem.num_slots, int(held_LN.sum(axis=1).max())),
        old=old,
    )
    if not group.hardware:
        by_rows = ExpertCurve((Plane(fixed=0.0, per_byte=0.0, per_flop=question.row_seconds),))
        problem = replace(problem, curves=(by_rows,))
    return replace(problem, num_slots=min(problem.num_slots, int(problem.slots_N.sum())))


def _roomy(held_N: Ints, fits_N: Ints) -> Ints:
    """As many slots as the fullest layer has now, in all of them, may be more than fit."""
    return np.maximum(held_N, fits_N)


def _tight(held_N: Ints, fits_N: Ints) -> Ints:
    return fits_N


def _held(plan: Plan, ranks: Sequence[int]) -> Ints:
    """-> held_LN: experts of each layer on each rank."""
    layers = [plan.layers[layer] for layer in sorted(plan.layers)]
    return np.array([[len(layer.slots[rank]) for rank in ranks] for layer in layers])


def _policy(served: ServedDeployment, group: GroupRanks, question: LoadQuestion) -> MovePolicy:
    emulated = any(pool.device == "emulated" for pool in group.pools)
    # An emulated device's seconds are declared ones; loading takes real ones.
    scale = served.config.emulation.time_scale if emulated else 1.0
    return MovePolicy(
        bytes_per_second=question.bytes_per_second * scale,
        step_bytes=_ALONE,
        horizon_steps=question.num_steps,
    )


def _is_worth_it(problem: ExpertProblem, decision: Rebalance) -> bool:
    """Experts move only where the solver says that it pays; new weights alone cost nothing."""
    assert problem.old is not None
    before = float(predicted_seconds(problem.old, problem).sum())
    gain = decision.gain_seconds
    if not decision.batches:
        gain = before - float(predicted_seconds(decision.placement, problem).sum())
    return gain > _LEAST_GAIN * before


def _stay(decision: Rebalance) -> str:
    reason = decision.reason.replace("the experts move: ", "")
    return reason if not decision.batches else f"the experts stay, the gain is small: {reason}"


def _layer_plans(
    spec: ModelSpec, group: GroupRanks, plan: Plan, stages: Sequence[Stage]
) -> tuple[dict[int, LayerPlan], ...]:
    """Under the plan's ranks, and without what does not change."""
    layers = dict(plan.layers)
    changes: list[dict[int, LayerPlan]] = []
    for stage in stages:
        new = {
            spec.moe_layers[row]: _merged(plan, spec.moe_layers[row], group.ranks, placement)
            for row, placement in stage.items()
        }
        changed = {layer: placed for layer, placed in new.items() if placed != layers[layer]}
        layers |= changed
        if changed:
            changes.append(changed)
    for layer, placed in layers.items():
        _on(placed, group.ranks).validate(layer, {0: range(len(group.ranks))}, plan.num_experts)
    return tuple(changes)


def _on(placed: LayerPlan, ranks: Sequence[int]) -> LayerPlan:
    """What some ranks have of a layer: other EP groups may be lost."""
    return LayerPlan(
        tuple(placed.slots[rank] for rank in ranks), tuple(placed.weights[rank] for rank in ranks)
    )


def _merged(plan: Plan, layer: int, ranks: Sequence[int], placement: ExpertPlacement) -> LayerPlan:
    slots, weights = list(plan.layers[layer].slots), list(plan.layers[layer].weights)
    placed = placement.layer_plans([layer], len(ranks))[layer]
    for index, rank in enumerate(ranks):
        slots[rank], weights[rank] = placed.slots[index], placed.weights[index]
    return LayerPlan(tuple(slots), tuple(weights))
