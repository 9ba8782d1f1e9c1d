"""What a model takes at least of the memory of each device that it is on."""

from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_memory import rank_memory
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PoolPlan

PAGE_SIZE = 64
_WIDTHS = {"float32": 4}
_NARROW = 2


def alone_bytes(
    spec: ModelSpec, *, device: str, weight_format: str, kv_tokens: int, limits: tuple[int, int]
) -> int:
    """Bytes of a model that is whole on one device: weights, working space and cache.

    Args:
        device: kind of device: cpu, cuda, npu or emulated.
        weight_format: bfloat16, fp8 ...; activations and cache are 16 bits wide beside it, or 32
            beside float32.
        kv_tokens: tokens of cache; at least a page is counted.
        limits: most tokens of a step, and most sequences.
    """
    pool = PoolPlan("one", device, (0,), weight_format=weight_format)
    plan = equal_split("one", spec.num_experts, spec.moe_layers, (pool,))
    return bytes_by_rank(spec, plan, kv_tokens=kv_tokens, limits=limits)[0]


def bytes_by_rank(
    spec: ModelSpec, plan: Plan, *, kv_tokens: int, limits: tuple[int, int]
) -> tuple[int, ...]:
    """The same of every rank of a plan, each with its own experts and so many tokens of cache.

    Raises:
        PlanError: the plan is of another model.
    """
    return tuple(
        rank_memory(
            spec,
            plan,
            rank,
            activation_bytes=_WIDTHS.get(plan.pool_of(rank).weight_format, _NARROW),
            max_tokens_per_step=limits[0],
            max_sequences=limits[1],
            page_size=PAGE_SIZE,
            num_pages=max(1, -(-kv_tokens // PAGE_SIZE)),
            device_bytes=0,
            memory_fraction=1.0,
        ).total
        for rank in range(plan.num_ranks)
    )
