"""A plan as a moe_serve config: the YAML file and, beside it, the plan that it names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.section import plain
from moe_placement.memory.rank_memory import RankMemory
from moe_placement.model.catalogue import shipped_name
from moe_placement.plan import Plan, PoolPlan
from moe_placement.plan_file import save
from moe_placement.report.pool_groups import group_index
from moe_placement.report.rank_order import by_pools
from moe_placement.solver.constraints import ENGINE_FORMATS, Constraints

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("GB", 10**9), ("MiB", 2**20), ("MB", 10**6))


def write_config(path: Path, text: str, plan: Plan) -> Path:
    """Write both files, the plan's ranks numbered as the config counts them; where the plan is.

    Args:
        text: what `config_text` gave for this `path`.

    Raises:
        OSError: a file cannot be written.
    """
    save(by_pools(plan), plan_path(path))
    path.write_text(text, encoding="utf-8")
    return plan_path(path)


def plan_path(path: Path) -> Path:
    """The plan file of a config: `mixed.yaml` has `mixed.plan.json`."""
    return path.with_name(f"{path.stem}.plan.json")


def config_text(
    plan: Plan,
    *,
    model: str,
    cluster: ClusterSpec,
    memories: Iterable[RankMemory],
    constraints: Constraints,
    max_context: int,
    plan_file: str,
    made_by: str,
) -> str:
    """The YAML text, which `moe_serve --check` accepts and prices as the planner did.

    Args:
        model: as the user named it: a checkpoint's folder or config.json, or a model's name.
        max_context: tokens of the longest sequence; the model's own where nobody asked for less.
        plan_file: where the plan is, from the config's own folder.
        made_by: the command, for the head of the file.
    """
    path, hint = _model_path(model)
    content: dict[str, Any] = {
        "model": {
            "path": path,
            "name": plan.model,
            "dtype": _dtype(plan, constraints),
            "max_context": max_context,
        },
        "pools": _pools(plan, {memory.pool: memory.device_bytes for memory in memories}),
    }
    links = _links(plan, cluster)
    if links:
        content["links"] = links
    content |= {
        "placement": {"plan": plan_file},
        "scheduler": {
            "max_tokens_per_step": constraints.max_tokens_per_step,
            "max_sequences": constraints.max_sequences,
        },
        "cache": {
            "page_size": constraints.page_size,
            "memory_fraction": constraints.memory_fraction,
        },
    }
    return f"# Made by: {made_by}\n{hint}\n{plain(content)}"


def _model_path(model: str) -> tuple[str, str]:
    path = Path(model)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        return str(folder.absolute()), ""
    hint = "# To serve, point it to a checkpoint: --set model.path=/models/...\n"
    return f"builtin:{shipped_name(model)}", hint


def _dtype(plan: Plan, constraints: Constraints) -> str:
    """Of activations and cache; the weights' own where all have one that the engine computes in."""
    formats = {pool.weight_format for pool in plan.pools}
    if len(formats) == 1 and formats <= set(ENGINE_FORMATS):
        return formats.pop()
    return "float32" if constraints.activation_bytes == 4 else "bfloat16"


def _pools(plan: Plan, device_bytes: Mapping[str, int]) -> list[dict[str, Any]]:
    return [_pool(pool, device_bytes[pool.name]) for pool in plan.pools]


def _pool(pool: PoolPlan, device_bytes: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": pool.name,
        "device": pool.device,
        "ranks": len(pool.ranks),
        "role": pool.role,
        "weights": pool.weight_format,
        "memory": _bytes(device_bytes),
    }
    if pool.tensor_parallel > 1:
        found["attention"] = {"tensor_parallel": pool.tensor_parallel}
    return found


def _bytes(count: int) -> str | int:
    """With the largest unit that says it exactly."""
    for unit, size in _UNITS:
        if count % size == 0:
            return f"{count // size}{unit}"
    return count


def _links(plan: Plan, cluster: ClusterSpec) -> list[dict[str, Any]]:
    """Of each pair of pools whose groups have a link of their own."""
    groups = cluster.groups
    pools: dict[str, list[str]] = {group.name: [] for group in groups}
    for pool in plan.pools:
        index = group_index(pool.name, groups)
        if index is not None:
            pools[groups[index].name].append(pool.name)
    return [
        {
            "between": [first, second],
            "bandwidth": f"{link.bandwidth:.0f}B/s",
            "latency": f"{link.latency * 1e6:.6g}us",
        }
        for link in cluster.links
        for first in pools[link.between[0]]
        for second in pools[link.between[1]]
    ]
