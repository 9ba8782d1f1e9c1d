"""A Solution as plain values for JSON; seconds, bytes, tokens and requests a second."""

from dataclasses import asdict
from typing import Any

from moe_placement.memory.rank_memory import RankMemory
from moe_placement.solver.solution import Solution


def solution_values(solution: Solution) -> dict[str, Any]:
    """One object: plan (pools alone), prediction, bound, choices, alternatives, memory by pool."""
    plan = solution.plan
    return {
        "model": plan.model,
        "num_ranks": plan.num_ranks,
        "pools": [asdict(pool) for pool in plan.pools],
        "prediction": asdict(solution.prediction),
        "step_seconds": solution.step_seconds,
        "lower_bound": solution.lower_bound,
        "gap": solution.gap,
        "binding": solution.binding,
        "choices": [asdict(choice) for choice in solution.choices],
        "alternatives": [asdict(option) for option in solution.alternatives],
        "memory": [_memory(memory) for memory in solution.memories],
    }


def _memory(memory: RankMemory) -> dict[str, Any]:
    return {
        **asdict(memory),
        "weights": memory.weights,
        "kv": memory.kv,
        "num_tokens": memory.num_tokens,
        "total": memory.total,
        "fits": memory.fits,
    }
