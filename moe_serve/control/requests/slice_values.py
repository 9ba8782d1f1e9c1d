"""Slices as `/v1/slices` shows them: what each model was given, and what it has used."""

from collections.abc import Sequence
from typing import Any

from moe_serve.control.planning.slices import SlicePlan
from moe_serve.messages import ALL_RANKS, PlacedTenant, RankStats

_MIB = 1 << 20


def slices_value(slices: SlicePlan, stats: Sequence[RankStats]) -> dict[str, Any]:
    """All slices, and what each rank has left, for JSON."""
    return {
        "object": "list",
        "data": [slice_value(each, stats) for each in slices.tenants],
        "ranks": [_rank_value(slices, rank) for rank in range(len(slices.budgets))],
    }


def slice_value(placed: PlacedTenant, stats: Sequence[RankStats]) -> dict[str, Any]:
    """One slice, for JSON."""
    used = [
        (rank.plan_rank, each)
        for rank in stats
        for each in rank.slices
        if each.tenant == placed.number
    ]
    return {
        "id": placed.model.name,
        "object": "slice",
        "rank": "all" if placed.rank == ALL_RANKS else placed.rank,
        "compute_percent": round(100 * placed.share, 6),
        "memory_mb": -(-placed.memory // _MIB),
        "mode": placed.model.slice.mode,
        "isolate": placed.model.slice.isolate,
        "used": [
            {
                "rank": rank,
                "seconds": each.seconds,
                "lifetime": each.lifetime,
                "memory_bytes": each.memory,
                "running": each.num_running,
                "waiting": each.num_waiting,
            }
            for rank, each in used
        ],
    }


def _rank_value(slices: SlicePlan, rank: int) -> dict[str, Any]:
    taken = sum(each.memory for each in slices.on(rank))
    return {
        "rank": rank,
        "memory_mb": slices.budgets[rank] // _MIB,
        "free_memory_mb": (slices.budgets[rank] - taken) // _MIB,
        "free_compute_percent": round(100 * slices.free_share(rank), 6),
    }
