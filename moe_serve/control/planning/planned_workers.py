"""A planned deployment as the planner's workers: each EP group with what its plan makes of it.

Shapes: L MoE layers, E experts, S slots of one layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from moe_placement.cost.coefficients import load_coefficients
from moe_placement.hardware.cluster import ClusterSpec, GroupLink, NodeGroup
from moe_placement.plan import LayerPlan, PoolPlan
from moe_placement.serving.together import request_shape
from moe_placement.serving.workload import Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.problem import ExpertPlacement
from moe_placement.solver.workers.candidate import Candidate, make_candidate, place_candidate
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import ExpertLoad
from moe_placement.solver.workers.room import Room
from moe_placement.solver.workers.worker import Part, Phase, WorkerKind

from moe_serve.config.tree import Config
from moe_serve.control.planning.automatic_plan import load_shares
from moe_serve.control.planning.deployment import ACTIVATION_BYTES, Deployment
from moe_serve.control.planning.hardware import pool_hardware


@dataclass(frozen=True, slots=True, eq=False)
class PlannedWorker:
    """Attributes:
    pools: of its EP group, those with attention and those with experts alone.
    candidate: timed by the plan's own placement and bounded by its ranks' memory.
    """

    pools: tuple[PoolPlan, ...]
    phase: Phase
    candidate: Candidate


def planned_workers(
    config: Config, deployment: Deployment, workload: Workload
) -> tuple[PlannedWorker, ...]:
    """The workers of a resolved config, all of whose pools name their hardware.

    Raises:
        ConfigError: hardware that is not known.
        HardwareError: a device that cannot compute with its pool's weight format.
    """
    context = cost_context(config, deployment)
    spec, plan = deployment.spec, deployment.plan
    shares_LE = load_shares(config.placement.load, spec) if spec.num_experts else None
    load = ExpertLoad.of(shares_LE, len(spec.moe_layers), spec.num_experts, distinct=True)
    limits = Constraints(
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
    )
    apart = any(pool.role == "prefill" for pool in plan.pools)
    workers = []
    for group, ranks in plan.ep_groups().items():
        pools = tuple(pool for pool in plan.pools if pool.is_in(group))
        kind = WorkerKind(tuple(_part(plan.pools.index(pool), pool) for pool in pools))
        room = Room(*_slots_and_cache(deployment, pools, group), 0)
        candidate = make_candidate(context, kind, room, load, request_shape(workload), limits)
        if spec.num_experts:
            placement = _placement([plan.layers[layer] for layer in spec.moe_layers], ranks)
            candidate = place_candidate(context, candidate, load, placement)
        workers.append(PlannedWorker(pools, _phase(pools, apart), candidate))
    return tuple(workers)


def cost_context(config: Config, deployment: Deployment) -> CostContext:
    """The config's pools as groups of a cluster, in their order, with the links that it has."""
    hardware = pool_hardware(config)
    groups = []
    for pool in config.pools:
        device = hardware[pool.name]
        per_node = min(device.devices_per_node, pool.ranks)
        nodes = -(-pool.ranks // per_node)
        groups.append(
            NodeGroup(name=pool.name, device=device, num_nodes=nodes, devices_per_node=per_node)
        )
    links = tuple(
        GroupLink(between=link.between, bandwidth=link.bandwidth, latency=link.latency)
        for link in config.links
    )
    cluster = ClusterSpec(groups=tuple(groups), links=links)
    activation_bytes = ACTIVATION_BYTES[config.models[0].dtype]
    return CostContext(deployment.spec, cluster, load_coefficients(), activation_bytes)


def _phase(pools: Sequence[PoolPlan], apart: bool) -> Phase:
    """Beside prefill pools the others decode, whatever else they may do."""
    if any(pool.role == "prefill" for pool in pools):
        return "prefill"
    return "decode" if apart else "both"


def _part(index: int, pool: PoolPlan) -> Part:
    num_devices = len(pool.ranks) // pool.num_ep_groups
    only = pool.role == "experts"
    return Part(index, num_devices, pool.weight_format, pool.tensor_parallel, only)


def _slots_and_cache(
    deployment: Deployment, pools: Sequence[PoolPlan], group: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The most experts of a layer, and the least cache, that a rank of each pool has."""
    layers, memories = deployment.plan.layers.values(), deployment.memories
    slots, tokens = [], []
    for pool in pools:
        ranks = pool.ep_groups()[group]
        slots.append(max((len(layer.slots[rank]) for layer in layers for rank in ranks), default=0))
        tokens.append(min(memories[rank].num_tokens for rank in ranks))
    return tuple(slots), tuple(tokens)


def _placement(layers: Sequence[LayerPlan], ranks: Sequence[int]) -> ExpertPlacement:
    """The plan's slots on an EP group's ranks, numbered from 0; layers with fewer have empty ones
    at their end."""
    seats: Mapping[int, int] = {rank: seat for seat, rank in enumerate(ranks)}
    rows = [
        [
            (expert, seats[rank], weight)
            for rank in ranks
            for expert, weight in zip(layer.slots[rank], layer.weights[rank], strict=True)
        ]
        for layer in layers
    ]
    longest = max(map(len, rows))
    padded = [row + [(-1, 0, 0.0)] * (longest - len(row)) for row in rows]
    expert_LS, rank_LS, weight_LS = np.moveaxis(np.array(padded, float), 2, 0)
    return ExpertPlacement(
        expert_LS=expert_LS.astype(np.int64),
        rank_LS=rank_LS.astype(np.int64),
        weight_LS=weight_LS,
    )
