"""Random placements of a checkpoint's experts, as plan files."""

import json
from pathlib import Path

import numpy as np
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.plan_file import save


def write_random_plan(
    path: Path,
    checkpoint: Path,
    num_ranks: int,
    seed: int,
    weight_format: str = "float32",
    idle_rank: int | None = None,
    pools: tuple[PoolPlan, ...] = (),
) -> Plan:
    """Uneven counts of experts, and replicas of uneven weight.

    Args:
        idle_rank: gets no expert at all.
        pools: by default the one pool of `live_server.server_config`.
    """
    generator = np.random.default_rng(seed)
    spec = ModelSpec.from_config(json.loads((checkpoint / "config.json").read_text()))
    pool = PoolPlan("host", "cpu", tuple(range(num_ranks)), weight_format=weight_format)
    holders = [rank for rank in range(num_ranks) if rank != idle_rank]
    layers = {
        layer: random_layer(generator, num_ranks, spec.num_experts, holders)
        for layer in spec.moe_layers
    }
    plan = Plan("tiny", spec.num_experts, pools or (pool,), layers)
    save(plan, path)
    return plan


def random_layer(
    generator: np.random.Generator, num_ranks: int, num_experts: int, holders: list[int]
) -> LayerPlan:
    chances = generator.dirichlet(np.full(len(holders), 2.0))
    placed: list[list[tuple[int, float]]] = [[] for _ in range(num_ranks)]
    for expert in generator.permutation(num_experts).tolist():
        num_replicas = min(len(holders), int(generator.choice([1, 2, 3], p=[0.6, 0.3, 0.1])))
        shares = generator.dirichlet(np.full(num_replicas, 3.0)).tolist()
        ranks = generator.choice(holders, num_replicas, replace=False, p=chances).tolist()
        for rank, share in zip(ranks, shares, strict=True):
            placed[rank].append((expert, share))
    return LayerPlan(
        tuple(tuple(expert for expert, _ in rank) for rank in placed),
        tuple(tuple(share for _, share in rank) for rank in placed),
    )
