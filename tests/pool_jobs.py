"""Jobs for real ranks of several pools: the pools, the links between them, and a plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expert_plans import write_random_plan
from moe_placement.plan import PoolPlan
from rank_jobs import Job, job

Pools = Sequence[dict[str, Any]]


def pool(
    name: str,
    ranks: int,
    role: str = "both",
    shards: int = 1,
    weights: str = "auto",
    device: str = "cpu",
) -> dict[str, Any]:
    return {
        "name": name,
        "device": device,
        "ranks": ranks,
        "role": role,
        "weights": weights,
        "threads": 1,
        "attention": {"tensor_parallel": shards},
    }


def links(names: Sequence[str], wire: str = "auto") -> list[dict[str, Any]]:
    return [
        {"between": [one, other], "bandwidth": "1GB/s", "wire": wire}
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    ]


def plan_pools(pools: Pools, dtype: str) -> tuple[PoolPlan, ...]:
    """
    Args:
        dtype: of the pools that have the model's own weights.
    """
    plans, first = [], 0
    for each in pools:
        ranks = tuple(range(first, first + each["ranks"]))
        weights = dtype if each["weights"] == "auto" else each["weights"]
        shards, group = each["attention"]["tensor_parallel"], int(each["role"] == "prefill")
        device, role = each["device"], each["role"]
        plans.append(PoolPlan(each["name"], device, ranks, role, weights, shards, group))
        first += each["ranks"]
    return tuple(plans)


def pool_job(
    path: Path,
    pools: Pools,
    file: Path,
    requests: Sequence[Job],
    wire: str = "auto",
    dtype: str = "float32",
    **more: Any,
) -> Job:
    """Requests for four ranks that are one EP group, under a random plan.

    Args:
        file: for the plan.
        wire: of every link.
        more: as `rank_jobs.job` has it.
    """
    write_random_plan(file, path, 4, 5, pools=plan_pools(pools, dtype))
    wanted = job(path, 4, [requests], plan=file, dtype=dtype, deterministic=False, **more)
    names = [each["name"] for each in pools]
    wanted["config"] |= {"pools": list(pools), "links": links(names, wire)}
    # Prompts are computed in chunks, beside those that decode.
    wanted["config"]["scheduler"] = {"max_tokens_per_step": 48}
    return wanted
