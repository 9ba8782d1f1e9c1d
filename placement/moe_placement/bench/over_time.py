"""The solver beside EPLB as time passes: planned on what was seen, met by what came after."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import Part, real_devices
from moe_placement.bench.objective import MIX
from moe_placement.bench.replay import Outcome, Placer, Traffic, play
from moe_placement.load.skew import Skew
from moe_placement.solver.moving.rebalance import MovePolicy, rebalance
from moe_placement.solver.place import place_experts
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem

Row = dict[str, Any]

_EQUAL = (Part("h20", "fp8", 32, 9),)
# Slots of every device that EPLB, which knows equal counts alone, may use in each case.
_CASES = (("32 h20", _EQUAL, 9), ("h20 + a2 + cpu", MIX, 16))
# Half of a 400 Gb/s network card is left to loading; a step of 50 ms then takes 1.25 GB a rank.
_POLICY = MovePolicy(bytes_per_second=25e9, step_bytes=32 * 1.25e9, horizon_steps=500)


def over_time(
    num_layers: int = 58, num_tokens: int = 4096, num_plans: int = 4, seed: int = 0
) -> Iterator[Row]:
    """DeepSeek-V3's experts, planned every 500 steps: seconds, balance and bytes moved.

    `ours, from nothing` plans without a look at what is there; a budget is a share of the bytes
    that EPLB moves at each plan; `where it pays` moves only for a gain that outweighs the loading
    until the next plan; `new weights only` moves nothing.
    """
    traffic = Traffic(
        skew=Skew(num_layers=num_layers, num_experts=256),
        num_tokens=num_tokens,
        num_plans=num_plans,
    )
    for name, parts, eplb_slots in _CASES:
        problem = real_devices(np.ones((num_layers, 256)), parts)
        eplb = play(_eplb(eplb_slots), problem, traffic, seed=seed)
        yield _row(name, "eplb", eplb, eplb)
        placers: Mapping[str, Placer] = {
            "ours, from nothing": _fresh,
            "ours": _ours(None),
            "ours, 1/4 of eplb's bytes": _ours(eplb.bytes_per_replan / 4),
            "ours, where it pays": _where_it_pays,
            "ours, new weights only": _ours(0.0),
        }
        for placer_name, placer in placers.items():
            yield _row(name, placer_name, play(placer, problem, traffic, seed=seed), eplb)


def _row(case: str, placer: str, outcome: Outcome, eplb: Outcome) -> Row:
    return {
        "devices": case,
        "placer": placer,
        "step_ms": outcome.step_seconds * 1e3,
        "over_eplb": outcome.step_seconds / eplb.step_seconds,
        "max_over_mean": outcome.imbalance,
        "gb_moved": outcome.bytes_per_replan / 1e9,
    }


def _eplb(slots: int) -> Placer:
    def place(problem: ExpertProblem) -> ExpertPlacement:
        num_ranks = len(problem.slots_N)
        return place_with_eplb(problem.rows_LE, num_slots=slots * num_ranks, num_ranks=num_ranks)

    return place


def _fresh(problem: ExpertProblem) -> ExpertPlacement:
    return place_experts(replace(problem, old=None)).placement


def _ours(move_bytes: float | None) -> Placer:
    def place(problem: ExpertProblem) -> ExpertPlacement:
        budget = None if problem.old is None else move_bytes
        return place_experts(replace(problem, move_bytes=budget)).placement

    return place


def _where_it_pays(problem: ExpertProblem) -> ExpertPlacement:
    if problem.old is None:
        return _fresh(problem)
    return rebalance(problem, _POLICY).placement
