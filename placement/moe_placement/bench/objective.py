"""The solver beside EPLB on the load that both were given: balance, unequal speeds, true curves."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import (
    TWO_LAYERS_LE,
    Part,
    real_devices,
    scalar_devices,
    skewed_rows,
)
from moe_placement.solver.place import place_experts
from moe_placement.solver.predicted import predicted_seconds
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats

Row = dict[str, Any]
# Experts, devices, slots, groups of experts and nodes; groups stay on a node where there are any.
Shape = tuple[int, int, int, int, int]

EQUAL_SHAPES: tuple[Shape, ...] = (
    (16, 4, 16, 0, 1),
    (32, 8, 48, 0, 1),
    (64, 8, 64, 0, 1),
    (64, 16, 80, 0, 1),
    (128, 16, 160, 0, 1),
    (256, 32, 288, 0, 1),
    (256, 32, 320, 0, 1),
    (256, 64, 320, 0, 1),
    (256, 144, 288, 0, 1),
    (256, 320, 640, 0, 1),
    (256, 32, 288, 8, 4),
    (256, 64, 320, 8, 8),
)
MIX = (
    Part("h20", "fp8", 8, 24),
    Part("atlas_a2_376t", "int8", 8, 16),
    Part("xeon_6980p", "int8", 2, 32),
)


def two_layers() -> Iterator[Row]:
    """The example of EPLB's README: fullest device over the mean, EPLB's 1.208 and 1.242.

    `even` is for engines whose replicas share evenly, as EPLB's do.
    """
    problem = scalar_devices(TWO_LAYERS_LE, np.full(8, 2))
    grouped = replace(problem, group_E=np.arange(12) // 3, node_N=np.arange(8) // 4)
    eplb = place_with_eplb(TWO_LAYERS_LE, num_slots=16, num_ranks=8, num_groups=4, num_nodes=2)
    eplb_L = _imbalance(eplb, problem)
    free, kept = place_experts(problem), place_experts(grouped)
    columns = {
        "ours": _imbalance(free.placement, problem),
        "even": _imbalance(_even(problem), problem),
        "ours_grouped": _imbalance(kept.placement, problem),
        "even_grouped": _imbalance(_even(grouped), problem),
    }
    for layer in range(2):
        ours = {name: float(values_L[layer]) for name, values_L in columns.items()}
        yield {"layer": layer, "eplb": float(eplb_L[layer]), **ours}


def equal_devices(
    num_layers: int = 58, seed: int = 0, shapes: Sequence[Shape] = EQUAL_SHAPES
) -> Iterator[Row]:
    """Fullest device over the mean on equal devices with the same slots; a layer is an instance.

    `even` is the solver's own for engines without weights. The excesses are the most by which any
    instance of either is above EPLB's, as a share of it.
    """
    for shape in shapes:
        num_experts, num_ranks, num_slots, num_groups, _ = shape
        rows_LE = skewed_rows(num_layers, num_experts, 1000.0 * num_ranks, seed)
        problem, eplb = _equal_instances(rows_LE, shape)
        result = place_experts(problem, seed=seed)
        ours_L, even_L, eplb_L = (
            _imbalance(placement, problem)
            for placement in (result.placement, _even(problem, seed), eplb)
        )
        yield {
            "experts": num_experts,
            "devices": num_ranks,
            "slots": num_slots,
            "groups": num_groups,
            "instances": num_layers,
            "ours": float(ours_L.mean()),
            "even": float(even_L.mean()),
            "eplb": float(eplb_L.mean()),
            "bound": float((result.layer_bound_L * num_ranks / rows_LE.sum(axis=1)).mean()),
            "worst_excess": float((ours_L / eplb_L - 1.0).max()),
            "worst_even_excess": float((even_L / eplb_L - 1.0).max()),
        }


def _equal_instances(rows_LE: Floats, shape: Shape) -> tuple[ExpertProblem, ExpertPlacement]:
    """The problem, one for each layer, and what EPLB makes of it."""
    num_experts, num_ranks, num_slots, num_groups, num_nodes = shape
    problem = scalar_devices(rows_LE, np.full(num_ranks, num_slots // num_ranks))
    if num_groups:
        group_E = np.arange(num_experts) * num_groups // num_experts
        node_N = np.arange(num_ranks) * num_nodes // num_ranks
        problem = replace(problem, group_E=group_E, node_N=node_N)
    eplb = place_with_eplb(
        rows_LE,
        num_slots=num_slots,
        num_ranks=num_ranks,
        num_groups=max(num_groups, 1),
        num_nodes=num_nodes,
    )
    return problem, eplb


def two_speeds(num_layers: int = 58, seed: int = 0) -> Iterator[Row]:
    """Half the devices slower: seconds over the bound, 256 experts on 32 devices of 10 slots."""
    rows_LE = skewed_rows(num_layers, 256, 32_000.0, seed)
    eplb = place_with_eplb(rows_LE, num_slots=320, num_ranks=32)
    for slow in (0.8, 0.55, 0.3):
        speed_N = np.where(np.arange(32) < 16, 1.0, slow)
        problem = scalar_devices(rows_LE, np.full(32, 10), speed_N=speed_N)
        result = place_experts(problem, seed=seed)
        yield {
            "slow_speed": slow,
            "instances": num_layers,
            "ours_over_bound": float((result.layer_seconds_L / result.layer_bound_L).mean()),
            "worst_over_bound": float((result.layer_seconds_L / result.layer_bound_L).max()),
            "eplb_over_bound": float(
                (predicted_seconds(eplb, problem) / result.layer_bound_L).mean()
            ),
        }


def true_curves(
    num_layers: int = 58, seed: int = 0, token_counts: Sequence[int] = (64, 256, 1024, 4096, 16384)
) -> Iterator[Row]:
    """DeepSeek-V3's experts over 8 H20, 8 Atlas A2 and 2 CPU sockets, by their own curves.

    EPLB, which knows equal counts alone, gets 16 slots of each device.
    """
    num_ranks = sum(part.num_devices for part in MIX)
    for has_links in (False, True):
        for num_tokens in token_counts:
            rows_LE = skewed_rows(num_layers, 256, 8.0 * num_tokens, seed)
            problem = real_devices(rows_LE, MIX, has_links=has_links)
            result = place_experts(problem, seed=seed)
            eplb = place_with_eplb(rows_LE, num_slots=16 * num_ranks, num_ranks=num_ranks)
            eplb_seconds = float(predicted_seconds(eplb, problem).sum())
            yield {
                "tokens": num_tokens,
                "links": has_links,
                "ours_ms": result.step_seconds * 1e3,
                "bound_ms": result.lower_bound * 1e3,
                "eplb_ms": eplb_seconds * 1e3,
                "gap": result.step_seconds / result.lower_bound - 1.0,
                "eplb_over_ours": eplb_seconds / result.step_seconds,
                "binding": result.binding,
            }


def _even(problem: ExpertProblem, seed: int = 0) -> ExpertPlacement:
    """The solver's placement for an engine without weights."""
    return place_experts(replace(problem, even=True), seed=seed).placement


def _imbalance(placement: ExpertPlacement, problem: ExpertProblem) -> Floats:
    """Of each layer, on scalar devices of equal speed."""
    mean_L = problem.rows_LE.sum(axis=1) / len(problem.slots_N)
    imbalance_L: Floats = predicted_seconds(placement, problem) / mean_L
    return imbalance_L
