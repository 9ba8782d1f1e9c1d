"""Random questions to the expert solver, and plain checks of its answers."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.plan import LayerPlan
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats


def random_problem(seed: int) -> ExpertProblem:
    """A small problem: any curves, slots (some 0) and loads (some 0), and often a side rule."""
    rng = np.random.default_rng(seed)
    num_layers, num_experts, num_ranks = (int(rng.integers(1, most)) for most in (4, 24, 10))
    slots_N = rng.integers(0, 8, num_ranks)
    curves = tuple(_curve(rng) for _ in range(rng.integers(1, 4)))
    problem = ExpertProblem(
        rows_LE=_rows(rng, num_layers, num_experts),
        flops_per_row=1e6,
        expert_bytes_N=rng.choice([1e3, 2e3], num_ranks),
        slots_N=slots_N,
        curves=curves,
        curve_N=rng.integers(0, len(curves), num_ranks),
        row_seconds_N=rng.choice([0.0, 1e-7], num_ranks),
        node_N=np.sort(rng.integers(0, 3, num_ranks)),
        domain_N=np.sort(rng.integers(0, 3, num_ranks)),
    )
    if rng.random() < 0.3:
        most = max(num_experts, int(slots_N.sum()))
        problem = replace(problem, num_slots=int(rng.integers(num_experts, most + 1)))
    rule = rng.random()
    if rule < 0.3:
        return replace(problem, spread=True)
    if rule < 0.5:
        return replace(problem, group_E=rng.integers(0, 3, num_experts))
    return problem


def with_old(problem: ExpertProblem, old: ExpertPlacement, seed: int) -> ExpertProblem:
    """The same after drift, sometimes with ranks lost, and with a budget or none."""
    rng = np.random.default_rng(seed)
    drifted_LE = problem.rows_LE * rng.exponential(1.0, problem.rows_LE.shape)
    budget = float(rng.integers(0, 8)) * 1e3 if rng.random() < 0.7 else None
    lost_N = rng.random(len(problem.slots_N)) < (0.2 if rng.random() < 0.3 else 0.0)
    slots_N = np.where(lost_N, 0, problem.slots_N)
    num_slots = 0 if lost_N.any() else problem.num_slots
    return replace(
        problem,
        rows_LE=drifted_LE,
        old=old,
        move_bytes=budget,
        slots_N=slots_N,
        num_slots=num_slots,
    )


def check_valid(problem: ExpertProblem, placement: ExpertPlacement) -> None:
    """Every expert is placed as the plan wants it, and every rule of the problem is kept."""
    num_layers, num_experts = problem.rows_LE.shape
    num_ranks = len(problem.slots_N)
    plans = placement.layer_plans(range(num_layers), num_ranks)
    for layer, plan in plans.items():
        plan.validate(layer, {0: range(num_ranks)}, num_experts)
        counts = [len(experts) for experts in plan.slots]
        assert all(count <= room for count, room in zip(counts, problem.slots_N, strict=True))
        assert sum(counts) <= (problem.num_slots or sum(counts))
        if problem.spread:
            assert all(len(set(problem.domain_N[ranks])) > 1 for ranks in _ranks(plan, num_experts))
        for group in np.unique(problem.group_E):
            members = set(np.flatnonzero(problem.group_E == group).tolist())
            ranks = [rank for rank in range(num_ranks) if members & set(plan.slots[rank])]
            assert len(set(problem.node_N[ranks])) == 1


def _ranks(plan: LayerPlan, num_experts: int) -> list[list[int]]:
    return [
        [rank for rank, experts in enumerate(plan.slots) if expert in experts]
        for expert in range(num_experts)
    ]


def true_seconds(problem: ExpertProblem, placement: ExpertPlacement) -> Floats:
    """Each layer's slowest rank, from the curves themselves, replica by replica."""
    num_layers, num_ranks = len(problem.rows_LE), len(problem.slots_N)
    seconds_LN = np.zeros((num_layers, num_ranks))
    for layer in range(num_layers):
        num_bytes, rows = [0.0] * num_ranks, [0.0] * num_ranks
        for expert, rank, weight in _replicas(placement, layer):
            mean = weight * float(problem.rows_LE[layer, expert])
            num_bytes[rank] += float(problem.expert_bytes_N[rank]) * (1 - math.exp(-mean))
            rows[rank] += mean
        for rank in range(num_ranks):
            curve = problem.curves[problem.curve_N[rank]]
            on_device = curve.seconds(num_bytes[rank], rows[rank] * problem.flops_per_row)
            on_link = float(problem.row_seconds_N[rank]) * rows[rank]
            seconds_LN[layer, rank] = on_device + on_link
    slowest_L: Floats = seconds_LN.max(1)
    return slowest_L


def loaded_bytes(problem: ExpertProblem, old: ExpertPlacement, new: ExpertPlacement) -> float:
    """Bytes of the replicas that are on a rank in the new placement only."""
    return sum(
        float(problem.expert_bytes_N[rank])
        for layer in range(len(problem.rows_LE))
        for _, rank in _places(new, layer) - _places(old, layer)
    )


def _places(placement: ExpertPlacement, layer: int) -> set[tuple[int, int]]:
    return {(expert, rank) for expert, rank, _ in _replicas(placement, layer)}


def _replicas(placement: ExpertPlacement, layer: int) -> Iterator[tuple[int, int, float]]:
    slots = zip(
        placement.expert_LS[layer].tolist(),
        placement.rank_LS[layer].tolist(),
        placement.weight_LS[layer].tolist(),
        strict=True,
    )
    return (slot for slot in slots if slot[0] >= 0)


def _rows(rng: np.random.Generator, num_layers: int, num_experts: int) -> Floats:
    shape = (num_layers, num_experts)
    kinds: list[Floats] = [
        rng.integers(0, 6, shape).astype(np.float64),
        rng.exponential(50.0, shape),
        np.full(shape, float(rng.integers(0, 3))),
        rng.lognormal(0.0, 2.0, shape),
    ]
    return kinds[rng.integers(len(kinds))]


def _curve(rng: np.random.Generator) -> ExpertCurve:
    def plane() -> Plane:
        per_byte = float(rng.choice([0.0, 1e-9]) * rng.uniform(0.1, 1.0))
        per_flop = float(rng.choice([0.0, 1e-12]) * rng.uniform(0.1, 1.0))
        return Plane(float(rng.choice([0.0, 1e-5])), per_byte, per_flop)

    return ExpertCurve(tuple(plane() for _ in range(rng.integers(1, 4))))
