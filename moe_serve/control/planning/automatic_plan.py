"""The plan that `placement.plan: auto` stands for, and why it is that one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moe_placement.equal_split import equal_split
from moe_placement.hardware.device import DeviceSpec
from moe_placement.load.trace import ExpertLoad, LoadError
from moe_placement.load.trace_file import load
from moe_placement.memory.rank_memory import RankMemory
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan
from moe_placement.solver.place import PlacementResult, place_experts
from moe_placement.solver.problem import Floats, PlacementImpossibleError

from moe_serve.config.tree import Config
from moe_serve.control.planning.expert_problem import GroupRanks, expert_problem, step_tokens

MemoriesOf = Callable[[Plan], Sequence[RankMemory]]


@dataclass(frozen=True, slots=True)
class ChosenPlan:
    """A plan, and why it is that one.

    Attributes:
        reasons: a sentence for each EP group; of a plan from a file, what is odd about it.
        results: what the solver found for each, by number; none where it was not asked.
    """

    plan: Plan
    reasons: tuple[str, ...] = ()
    results: tuple[PlacementResult, ...] = ()


@dataclass(frozen=True, slots=True)
class _Placed:
    layers: Mapping[int, LayerPlan]
    reason: str
    result: PlacementResult


def automatic_plan(
    config: Config,
    spec: ModelSpec,
    pools: Sequence[PoolPlan],
    hardware: Mapping[str, DeviceSpec],
    memories_of: MemoriesOf,
    activation_bytes: int,
) -> ChosenPlan:
    """The same on every rank that reads the same config and trace.

    Without a load trace and without hardware every EP group splits its experts evenly. With a
    trace each rank gets as many rows as the others, where nothing is known of their hardware, and
    else as many as its device takes in the same time; `redundancy` lets busy experts have replicas.

    Args:
        hardware: by pool.
        memories_of: what each rank must hold under a plan.

    Raises:
        PlanError: a trace that cannot be read or is of another model; pools of one EP group of
            which only some name their hardware; or experts that do not fit.
    """
    placement = config.placement
    equal = equal_split(config.models[0].name, spec.num_experts, spec.moe_layers, pools)
    if not spec.num_experts or not (placement.load or hardware):
        return ChosenPlan(equal, ("experts are split evenly: no hardware or load is named",))
    shares_LE = load_shares(placement.load, spec)
    memories = memories_of(equal)
    groups = [
        _group(ranks, pools, hardware, memories) for ranks in _sorted_groups(equal.ep_groups())
    ]
    placed = [_place(config, spec, group, shares_LE, activation_bytes) for group in groups]
    layers = _merge(groups, [each.layers for each in placed], equal.num_ranks)
    plan = Plan(equal.model, spec.num_experts, tuple(pools), layers)
    plan.validate()
    return ChosenPlan(
        plan, tuple(each.reason for each in placed), tuple(each.result for each in placed)
    )


def _sorted_groups(groups: Mapping[int, Sequence[int]]) -> Iterator[list[int]]:
    return (sorted(ranks) for _, ranks in sorted(groups.items()))


def _group(
    ranks: Sequence[int],
    pools: Sequence[PoolPlan],
    hardware: Mapping[str, DeviceSpec],
    memories: Sequence[RankMemory],
) -> GroupRanks:
    pool_of = {rank: pool for pool in pools for rank in pool.ranks}
    pool_N = [pool_of[rank] for rank in ranks]
    names = dict.fromkeys(pool.name for pool in pool_N)
    known = {name: hardware[name] for name in names if name in hardware}
    if known and len(known) < len(names):
        missing = next(name for name in names if name not in known)
        raise PlanError(
            f"pool {missing!r} names no hardware and {next(iter(known))!r} does; experts are shared"
            " out by what each pool's devices take for them: name it in all pools or in none"
        )
    return GroupRanks(
        ranks=ranks, pool_N=pool_N, memory_N=[memories[rank] for rank in ranks], hardware=known
    )


def _place(
    config: Config,
    spec: ModelSpec,
    group: GroupRanks,
    shares_LE: Floats,
    activation_bytes: int,
) -> _Placed:
    problem = expert_problem(config, spec, group, shares_LE, activation_bytes)
    try:
        result = place_experts(problem)
    except PlacementImpossibleError as error:
        raise PlanError(f"{error}") from error
    layers = result.placement.layer_plans(spec.moe_layers, len(group.ranks))
    return _Placed(layers, _reason(group, result, step_tokens(config, group), layers), result)


def _reason(
    group: GroupRanks, result: PlacementResult, tokens: int, layers: Mapping[int, LayerPlan]
) -> str:
    shares = ", ".join(f"{pool.name} {_slots_in(group, pool, layers):.4g}" for pool in group.pools)
    if not group.hardware:
        return f"experts a layer: {shares}, so that all ranks get as many rows"
    return (
        f"experts a layer: {shares}; at {tokens} tokens a step the slowest ranks compute experts "
        f"for {result.step_seconds * 1e3:.3g} ms, no plan for less than "
        f"{result.lower_bound * 1e3:.3g} ms (gap {result.gap:.1%}); bound by {result.binding}"
    )


def _slots_in(group: GroupRanks, pool: PoolPlan, layers: Mapping[int, LayerPlan]) -> float:
    """Slots of a layer, in the mean, that a pool's ranks have."""
    seats = [seat for seat, each in enumerate(group.pool_N) if each is pool]
    slots = sum(len(layer.slots[seat]) for layer in layers.values() for seat in seats)
    return slots / len(layers)


def _merge(
    groups: Sequence[GroupRanks], placed: Sequence[Mapping[int, LayerPlan]], num_ranks: int
) -> dict[int, LayerPlan]:
    """Each group's own layers under the plan's ranks."""
    merged = {}
    for layer in placed[0]:
        slots: list[tuple[int, ...]] = [()] * num_ranks
        weights: list[tuple[float, ...]] = [()] * num_ranks
        for group, layers in zip(groups, placed, strict=True):
            for index, rank in enumerate(group.ranks):
                slots[rank] = layers[layer].slots[index]
                weights[rank] = layers[layer].weights[index]
        merged[layer] = LayerPlan(tuple(slots), tuple(weights))
    return merged


def load_shares(path: str, spec: ModelSpec) -> Floats:
    """-> shares_LE of each layer's rows, even where there is no trace."""
    if not path:
        return np.full((len(spec.moe_layers), spec.num_experts), 1.0 / spec.num_experts)
    try:
        rows_LE = _read(path, spec).rows_LE(1, spec.num_experts_per_token)
    except LoadError as error:
        raise PlanError(str(error)) from error
    shares_LE: Floats = rows_LE / rows_LE.sum(axis=1, keepdims=True)
    return shares_LE


def _read(path: str, spec: ModelSpec) -> ExpertLoad:
    trace = load(Path(path))
    if (trace.layers, trace.num_experts) != (spec.moe_layers, spec.num_experts):
        raise LoadError(
            f"load file {path}: has {trace.num_layers} layers of {trace.num_experts} experts, the "
            f"model has {len(spec.moe_layers)} of {spec.num_experts}; record it with this model"
        )
    return trace
