"""What fits on a worker's devices: slots for experts, and the cache beside them."""

from dataclasses import dataclass

from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.memory.rank_memory import RankMemory, rank_memory
from moe_placement.memory.rank_weights import expert_bytes
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.serving.workload import Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.workers.worker import Part, WorkerKind

_FITTING_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of one worker, part by part.

    Attributes:
        slots: that each rank of a part has in every layer, at most.
        cache_tokens: that one attention group of a part can hold beside them; 0 without attention.
        shortfall: bytes that are missing on all ranks together; 0 where the worker fits.
    """

    slots: tuple[int, ...]
    cache_tokens: tuple[int, ...]
    shortfall: int


def price_rank(
    spec: ModelSpec, plan: Plan, rank: int, group: NodeGroup, constraints: Constraints
) -> RankMemory:
    """One rank's memory under the constraints, its cache taking what is left."""
    return rank_memory(
        spec,
        plan,
        rank,
        activation_bytes=constraints.activation_bytes,
        max_tokens_per_step=constraints.max_tokens_per_step,
        max_sequences=constraints.max_sequences,
        page_size=constraints.page_size,
        num_pages=None,
        device_bytes=group.usable_memory,
        memory_fraction=constraints.memory_fraction,
        max_context=constraints.max_context or None,
    )


def sequence_tokens(workload: Workload, constraints: Constraints) -> int:
    """Tokens that the cache of one attention group must hold at least: the longest sequence that
    was asked for, else one of the mean length with two deviations more."""
    if constraints.max_context:
        return constraints.max_context
    longest = workload.prompt_tokens * (1 + 2 * workload.prompt_cv)
    return round(longest + workload.output_tokens * (1 + 2 * workload.output_cv))


def find_room(
    spec: ModelSpec,
    cluster: ClusterSpec,
    kind: WorkerKind,
    workload: Workload,
    constraints: Constraints,
    copies: int = 1,
) -> Room:
    """Slots and cache of a worker with room for so many copies of all experts."""
    slots = _slots(spec, cluster, kind, constraints, copies)
    missing = copies * spec.num_experts - _held(slots, kind)
    if missing > 0:
        one_slot = min(_expert_bytes(spec, cluster, part) for part in kind.parts)
        return Room(slots, (0,) * len(slots), missing * len(spec.moe_layers) * one_slot)
    return room_for_slots(spec, cluster, kind, slots, workload, constraints)


def room_for_slots(
    spec: ModelSpec,
    cluster: ClusterSpec,
    kind: WorkerKind,
    slots: tuple[int, ...],
    workload: Workload,
    constraints: Constraints,
) -> Room:
    """The cache beside given slots."""
    needed = sequence_tokens(workload, constraints)
    plan = _stand_in(spec, cluster, kind, slots)
    shortfall, tokens, first = 0, [], 0
    for part in kind.parts:
        memory = price_rank(spec, plan, first, cluster.groups[part.group], constraints)
        tokens.append(memory.num_tokens)
        shortfall += part.num_devices * _lacking(memory, needed)
        first += part.num_devices
    return Room(slots, tuple(tokens), shortfall)


def _lacking(memory: RankMemory, needed_tokens: int) -> int:
    """Bytes by which a rank lacks room for its weights and the longest sequence."""
    pages = -(-needed_tokens // memory.page_size) if memory.page_bytes else 0
    wanted = memory.weights + memory.working_space + pages * memory.page_bytes
    return max(0, wanted - memory.budget)


def _slots(
    spec: ModelSpec, cluster: ClusterSpec, kind: WorkerKind, constraints: Constraints, copies: int
) -> tuple[int, ...]:
    """An even share where devices are alike, else what each has room for beside its cache.

    A rank's working space grows with its slots, so unlike parts start from an even share and give
    slots back as long as that makes them too full.
    """
    even = -(-spec.num_experts * copies // kind.num_devices)
    if not kind.is_mixed or not spec.num_experts:
        return (even,) * len(kind.parts)
    slots = _fitted(spec, cluster, kind, (even,) * len(kind.parts), constraints)
    for _ in range(_FITTING_ROUNDS):
        fitted = _fitted(spec, cluster, kind, slots, constraints)
        slots = tuple(map(min, slots, fitted))
    return slots


def _fitted(
    spec: ModelSpec,
    cluster: ClusterSpec,
    kind: WorkerKind,
    slots: tuple[int, ...],
    constraints: Constraints,
) -> tuple[int, ...]:
    """Slots that each part has room for when its working space is that of the given ones."""
    plan = _stand_in(spec, cluster, kind, slots)
    fitted, first = [], 0
    for part in kind.parts:
        memory = price_rank(spec, plan, first, cluster.groups[part.group], constraints)
        left = memory.budget - memory.other_weights - memory.working_space
        share = 1.0 if part.experts_only else 1 - kind.cache_share
        one_slot = len(spec.moe_layers) * _expert_bytes(spec, cluster, part)
        fitted.append(min(spec.num_experts, max(0, int(left * share) // one_slot)))
        first += part.num_devices
    return tuple(fitted)


def holds_pairs(
    spec: ModelSpec, cluster: ClusterSpec, kind: WorkerKind, slots: tuple[int, ...]
) -> bool:
    """Whether these slots hold each expert in two failure domains, wherever the worker starts: a
    domain has no use for an expert twice, and devices that share as few domains as they can
    have the least."""
    held = 0
    for n, part in zip(slots, kind.parts, strict=True):
        group = cluster.groups[part.group]
        full, rest = divmod(
            part.num_devices, group.devices_per_node * group.nodes_per_failure_domain
        )
        domain = (part.num_devices - rest) // max(full, 1)
        held += full * min(domain * n, spec.num_experts) + min(rest * n, spec.num_experts)
    return held >= 2 * spec.num_experts


def _expert_bytes(spec: ModelSpec, cluster: ClusterSpec, part: Part) -> int:
    return expert_bytes(spec, part.weight_format, cluster.groups[part.group].device.kind)


def _held(slots: tuple[int, ...], kind: WorkerKind) -> int:
    return sum(n * part.num_devices for n, part in zip(slots, kind.parts, strict=True))


def _stand_in(
    spec: ModelSpec, cluster: ClusterSpec, kind: WorkerKind, slots: tuple[int, ...]
) -> Plan:
    """The worker alone as a plan whose every slot takes all rows of an expert: no placement
    into these slots needs more working space."""
    held: list[tuple[int, ...]] = []
    pools = []
    for n, part in zip(slots, kind.parts, strict=True):
        pools.append(
            pool_plan(cluster, part, tuple(range(len(held), len(held) + part.num_devices)))
        )
        held += [tuple(range(n))] * part.num_devices
    layer = LayerPlan(tuple(held), tuple((1.0,) * len(experts) for experts in held))
    return Plan("", spec.num_experts, tuple(pools), dict.fromkeys(spec.moe_layers, layer))


def pool_plan(cluster: ClusterSpec, part: Part, ranks: tuple[int, ...]) -> PoolPlan:
    """A pool of one part's devices."""
    group = cluster.groups[part.group]
    return PoolPlan(
        name=group.name,
        device=group.device.kind,
        ranks=ranks,
        role="experts" if part.experts_only else "both",
        weight_format=part.weight_format,
        tensor_parallel=part.tensor_parallel,
    )
