"""A plan as the simulator runs it: one worker for each EP group, timed by the plan's placement.

Shapes: L distinct MoE layers, S slots of one layer in one EP group.
"""

from collections.abc import Sequence

import numpy as np

from moe_placement.cli.asked import Asked
from moe_placement.cli.parser import UsageError
from moe_placement.hardware.cluster import NodeGroup
from moe_placement.memory.rank_memory import RankMemory
from moe_placement.memory.report import format_bytes
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.report.pool_groups import group_index
from moe_placement.serving.together import request_shape
from moe_placement.simulator.deployment import (
    KvTransfer,
    SimulatedDeployment,
    SimulatedLink,
    SimulatedWorker,
    Traffic,
    WorkerRole,
)
from moe_placement.simulator.part_timers import PartTimer
from moe_placement.simulator.scheduler import SchedulerLimits
from moe_placement.solver.problem import ExpertPlacement
from moe_placement.solver.workers.candidate import Candidate, make_candidate, place_candidate
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import ExpertLoad
from moe_placement.solver.workers.room import Room, price_rank
from moe_placement.solver.workers.worker import Part, WorkerKind

_LINK = "prefill to decode"


def simulated_deployment(plan: Plan, asked: Asked, scheduler: str) -> SimulatedDeployment:
    """Workers, and where phases are apart the link for KV caches.

    Raises:
        UsageError: a pool that is in no group of the cluster, or memory that is short.
    """
    context = CostContext(
        asked.spec, asked.cluster, asked.coefficients, asked.constraints.activation_bytes
    )
    workers = tuple(_worker(plan, group, asked, context) for group in plan.ep_groups())
    is_apart = any(worker.role != "both" for worker in workers)
    # What dispatch takes is in the timers already; these only count its bytes.
    links = [SimulatedLink(name=name) for name in dict.fromkeys(map(_dispatch_link, workers))]
    if is_apart:
        links.append(SimulatedLink(name=_LINK, bandwidth=_bandwidth(plan, asked)))
    transfer = KvTransfer(
        link=_LINK,
        bytes_per_token=asked.spec.kv_elements_per_token * asked.constraints.activation_bytes,
        num_layers=asked.spec.num_layers,
    )
    return SimulatedDeployment(
        workers=workers,
        links=tuple(links),
        transfer=transfer if is_apart else None,
        scheduler=scheduler,
    )


def _group_of(pool: PoolPlan, groups: Sequence[NodeGroup]) -> int:
    index = group_index(pool.name, groups)
    if index is None:
        names = ", ".join(group.name for group in groups)
        raise UsageError(f"--plan: pool {pool.name!r} is of no group of the cluster ({names})")
    return index


def _worker(plan: Plan, group: int, asked: Asked, context: CostContext) -> SimulatedWorker:
    pools = [pool for pool in plan.pools if group in pool.ep_groups()]
    held = [pool.ep_groups()[group] for pool in pools]
    ranks = tuple(rank for own in held for rank in own)
    parts = tuple(_part(pool, own, asked) for pool, own in zip(pools, held, strict=True))
    fullest = [max(own, key=lambda rank: _slots(plan, rank)) for own in held]
    memories = [_memory(plan, rank, part, asked) for part, rank in zip(parts, fullest, strict=True)]
    room = Room(
        tuple(_slots(plan, rank) for rank in fullest),
        tuple(memory.num_tokens for memory in memories),
        shortfall=0,
    )
    candidate = _timed(plan, ranks, WorkerKind(parts), room, asked, context)
    name = " + ".join(pool.name for pool in pools)
    return SimulatedWorker(
        pool=name,
        timer=candidate.timer,
        limits=_limits(asked, min(memory.num_pages for memory in memories if memory.num_pages)),
        role=_role([pool.role for pool in pools]),
        num_ranks=candidate.kind.num_attention_groups,
        rank_timer=PartTimer(candidate.timer),
        rank_weights=_rank_weights(candidate),
        traffic=(Traffic(f"{name} dispatch", _dispatch_bytes(asked, len(ranks))),),
    )


def _part(pool: PoolPlan, ranks: Sequence[int], asked: Asked) -> Part:
    return Part(
        group=_group_of(pool, asked.cluster.groups),
        num_devices=len(ranks),
        weight_format=pool.weight_format,
        tensor_parallel=pool.tensor_parallel,
        experts_only=pool.role == "experts",
    )


def _memory(plan: Plan, rank: int, part: Part, asked: Asked) -> RankMemory:
    group = asked.cluster.groups[part.group]
    memory = price_rank(asked.spec, plan, rank, group, asked.constraints)
    if not memory.fits:
        raise UsageError(
            f"--plan: {memory.device} lacks {format_bytes(memory.shortfall)}; make a plan for "
            "this cluster"
        )
    return memory


def _dispatch_link(worker: SimulatedWorker) -> str:
    return worker.traffic[0].link


def _dispatch_bytes(asked: Asked, num_ranks: int) -> float:
    """Of one token: rows to other ranks and back, in all MoE layers."""
    spec = asked.spec
    rows = len(spec.moe_layers) * spec.num_experts_per_token * (1 - 1 / num_ranks)
    return 2 * rows * spec.hidden_size * asked.constraints.activation_bytes


def _rank_weights(candidate: Candidate) -> tuple[float, ...]:
    """The share of the tokens that each attention group has."""
    return tuple(
        share / part.num_attention_groups
        for part, share in zip(candidate.kind.parts, candidate.share_P.tolist(), strict=True)
        for _ in range(part.num_attention_groups)
    )


def _timed(
    plan: Plan,
    ranks: tuple[int, ...],
    kind: WorkerKind,
    room: Room,
    asked: Asked,
    context: CostContext,
) -> Candidate:
    spec = asked.spec
    shares = None if asked.load is None else asked.load.shares
    load = ExpertLoad.of(shares, len(spec.moe_layers), spec.num_experts)
    request = request_shape(asked.workload)
    candidate = make_candidate(context, kind, room, load, request, asked.constraints)
    if not kind.is_mixed:
        return candidate
    first_L = np.unique(load.layer_M, return_index=True)[1]
    layers = [plan.layers[spec.moe_layers[index]] for index in first_L.tolist()]
    return place_candidate(context, candidate, load, _placement(layers, ranks))


def _placement(layers: Sequence[LayerPlan], ranks: tuple[int, ...]) -> ExpertPlacement:
    """The slots of these ranks, counted from 0; shorter layers are filled up with empty ones."""
    rows = [
        [
            (expert, place, weight)
            for place, rank in enumerate(ranks)
            for expert, weight in zip(layer.slots[rank], layer.weights[rank], strict=True)
        ]
        for layer in layers
    ]
    longest = max(map(len, rows))
    filled = np.array([row + [(-1, 0, 0.0)] * (longest - len(row)) for row in rows])
    return ExpertPlacement(
        expert_LS=filled[..., 0].astype(np.int64),
        rank_LS=filled[..., 1].astype(np.int64),
        weight_LS=filled[..., 2],
    )


def _slots(plan: Plan, rank: int) -> int:
    return max((len(layer.slots[rank]) for layer in plan.layers.values()), default=0)


def _limits(asked: Asked, num_pages: int) -> SchedulerLimits:
    constraints, tokens = asked.constraints, asked.workload.tokens_per_step
    return SchedulerLimits(
        num_pages=num_pages,
        page_size=constraints.page_size,
        max_tokens_per_step=constraints.max_tokens_per_step,
        max_sequences=constraints.max_sequences,
        max_context=constraints.max_context,
        tokens_per_step=tokens,
        decode_tokens=int(np.ceil(tokens)),
    )


def _role(roles: Sequence[str]) -> WorkerRole:
    if "prefill" in roles:
        return "prefill"
    return "decode" if "decode" in roles else "both"


def _bandwidth(plan: Plan, asked: Asked) -> float:
    """Bytes/s from all prefill to all decode devices, by the narrower side's networks."""
    sides = []
    for role in ("prefill", "decode"):
        pools = [pool for pool in plan.pools if pool.role == role]
        devices = [
            asked.cluster.groups[_group_of(pool, asked.cluster.groups)].device for pool in pools
        ]
        sides.append(
            sum(
                len(pool.ranks) * device.network_bandwidth * device.link_efficiency
                for pool, device in zip(pools, devices, strict=True)
            )
        )
    return min(sides) or float("inf")
