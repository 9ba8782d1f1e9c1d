"""What one rank's device must hold: weights by part, exactly; working space; the KV cache."""

from dataclasses import dataclass

from moe_placement.memory.working_space import working_space
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError, PoolPlan

_WEIGHT_BITS = {
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "fp8": 8,
    "int8": 8,
    "int4": 4,
}
# Routers compute in float32, whatever the pool's format; a rounded one would choose others.
_GATE_BITS = 32
_OTHER_WEIGHTS = (
    "attention",
    "dense_mlp",
    "shared_experts",
    "embedding_and_head",
    "gates_and_norms",
    "rotary_table",
)
# Kinds of devices whose kernels keep matrices in a layout of their own. The embedding is kept
# plain, for its rows are looked up, so there a head tied to it is a second copy.
_PACKING_DEVICES = frozenset({"cpu"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes on one rank's device, by part.

    Attributes:
        pool: the pool's name.
        device: kind and plan rank, as in `npu:3`.
        rotary_table: cosines and sines of every position.
        working_space: an estimate; see `working_space.py`.
        page_bytes: one page of the KV cache over all layers; 0 where there is no cache.
        num_pages: as asked for, else all that fit in the budget, and at least one.
        device_bytes: what the device has for this rank.
        budget: the share of it that may be used.
        pages_fixed: `num_pages` was asked for.
    """

    rank: int
    pool: str
    device: str
    attention: int
    dense_mlp: int
    shared_experts: int
    embedding_and_head: int
    gates_and_norms: int
    rotary_table: int
    experts: int
    working_space: int
    page_bytes: int
    page_size: int
    num_pages: int
    device_bytes: int
    budget: int
    pages_fixed: bool

    @property
    def weights(self) -> int:
        return self.other_weights + self.experts

    @property
    def other_weights(self) -> int:
        """All that is loaded or made at start but the experts."""
        return sum(getattr(self, part) for part in _OTHER_WEIGHTS)

    @property
    def kv(self) -> int:
        return self.num_pages * self.page_bytes

    @property
    def num_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_pages * self.page_size

    @property
    def total(self) -> int:
        return self.weights + self.working_space + self.kv

    @property
    def shortfall(self) -> int:
        return max(0, self.total - self.budget)

    @property
    def fits(self) -> bool:
        return self.shortfall == 0


def rank_memory(
    spec: ModelSpec,
    plan: Plan,
    rank: int,
    *,
    activation_bytes: int = 2,
    max_tokens_per_step: int,
    max_sequences: int | None = None,
    page_size: int,
    num_pages: int | None,
    device_bytes: int,
    memory_fraction: float,
    max_context: int | None = None,
) -> RankMemory:
    """Price one plan rank.

    Gates with their correction biases are always float32. A format of 8 or 4 bits holds the
    matrices of attention, dense layers, shared and routed experts, without their scales;
    embedding, head and norms then stay as wide as activations, as the rotary table always is. A
    tied head counts where the device's kernels pack matrices.

    Args:
        activation_bytes: of one element of activations and KV cache.
        max_sequences: the most tokens whose logits one step wants; None is all its tokens.
        num_pages: None or 0 takes what is left of the budget, in whole pages.
        device_bytes: what this rank may use of its device; where ranks share a host's memory,
            this rank's share.
        memory_fraction: share of `device_bytes` for everything here.
        max_context: tokens of the longest sequence served; None is the model's context.

    Raises:
        PlanError: the plan is of another model, or asks for a weight format or tensor
            parallelism that cannot be priced.
    """
    check_model(plan, spec)
    pool = plan.pool_of(rank)
    weights = _weights(spec, plan, rank, pool, activation_bytes)
    length = _round_up(max_context or spec.context_length, page_size)
    tokens = (max_tokens_per_step, max_sequences)
    working = working_space(spec, plan, rank, activation_bytes, *tokens, max_length=length)
    page_bytes = 0
    if pool.role != "experts":
        page_bytes = page_size * spec.num_layers * spec.kv_elements * activation_bytes
    budget = int(device_bytes * memory_fraction)
    left = budget - sum(weights.values()) - working
    return RankMemory(
        rank=rank,
        pool=pool.name,
        device=f"{pool.device}:{rank}",
        **weights,
        working_space=working,
        page_bytes=page_bytes,
        page_size=page_size,
        num_pages=_pages(num_pages, left, page_bytes),
        device_bytes=device_bytes,
        budget=budget,
        pages_fixed=bool(num_pages),
    )


def check_model(plan: Plan, spec: ModelSpec) -> None:
    """Raise PlanError unless the plan places the experts of exactly this model's MoE layers."""
    if plan.layers and plan.num_experts != spec.num_experts:
        raise PlanError(
            f"the plan has {plan.num_experts} experts a layer, {spec.architecture} here has "
            f"{spec.num_experts}; make a plan for this model"
        )
    for layer in sorted(plan.layers.keys() ^ set(spec.moe_layers)):
        holder, other = ("plan", "model") if layer in plan.layers else ("model", "plan")
        raise PlanError(f"layer {layer} has experts in the {holder} but not in the {other}")


def _weights(
    spec: ModelSpec, plan: Plan, rank: int, pool: PoolPlan, activation_bytes: int
) -> dict[str, int]:
    if pool.tensor_parallel != 1:
        raise PlanError(
            f"pool {pool.name!r} has tensor_parallel {pool.tensor_parallel}; "
            "only 1 can be placed, use 1 and more memory a rank or a smaller weight format"
        )
    if pool.weight_format not in _WEIGHT_BITS:
        raise PlanError(
            f"pool {pool.name!r} has weight format {pool.weight_format!r}; "
            f"use {', '.join(_WEIGHT_BITS)}"
        )
    bits = _WEIGHT_BITS[pool.weight_format]
    plain_bits = bits if bits >= 16 else 8 * activation_bytes
    experts = _bytes(plan.num_slots(rank) * spec.mlp.expert, bits)
    if pool.role == "experts":
        return dict.fromkeys(_OTHER_WEIGHTS, 0) | {"experts": experts}
    count = spec.parameters
    head = count["head"] or count["embedding"] * (pool.device in _PACKING_DEVICES)
    gates = _bytes(count["gate"] + spec.num_buffers, _GATE_BITS)
    return {
        "attention": _bytes(count["attention"], bits),
        "dense_mlp": _bytes(count["dense_mlp"], bits),
        "shared_experts": _bytes(count["shared_experts"], bits),
        "embedding_and_head": _bytes(count["embedding"] + head, plain_bits),
        "gates_and_norms": gates + _bytes(count["norms"], plain_bits),
        "rotary_table": spec.rotary_elements * activation_bytes,
        "experts": experts,
    }


def _bytes(num_elements: int, bits: int) -> int:
    return -(-num_elements * bits // 8)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _pages(asked: int | None, left: int, page_bytes: int) -> int:
    if page_bytes == 0:
        return 0
    return asked or max(1, left // page_bytes)
