"""What one rank's device must hold: weights by part, exactly; working space; the KV cache."""

from dataclasses import dataclass

from moe_placement.memory.rank_weights import OTHER_WEIGHTS, cache_elements, rank_weights
from moe_placement.memory.working_space import working_space
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes on one rank's device, by part.

    Attributes:
        pool: the pool's name.
        device: kind and plan rank, as in `npu:3`.
        rotary_table: cosines and sines of every position.
        working_space: an estimate; see `working_space.py`.
        moving: kept for experts that come while those that leave are still there.
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
    moving: int = 0

    @property
    def weights(self) -> int:
        return self.other_weights + self.experts

    @property
    def other_weights(self) -> int:
        """All that is loaded or made at start but the experts."""
        return sum(getattr(self, part) for part in OTHER_WEIGHTS)

    @property
    def kv(self) -> int:
        return self.num_pages * self.page_bytes

    @property
    def num_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_pages * self.page_size

    @property
    def total(self) -> int:
        return self.weights + self.working_space + self.moving + self.kv

    @property
    def room_for_experts(self) -> int:
        """What the rest leaves of the budget."""
        return self.budget - (self.total - self.experts)

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
    moving: int = 0,
) -> RankMemory:
    """Price one plan rank.

    Weights are those of `rank_weights`. With tensor parallelism a rank holds its share of the
    cache's heads; a latent is copied.

    Args:
        activation_bytes: of one element of activations and KV cache.
        max_sequences: the most tokens whose logits one step wants; None is all its tokens.
        num_pages: None or 0 takes what is left of the budget, in whole pages.
        device_bytes: what this rank may use of its device; where ranks share a host's memory,
            this rank's share.
        memory_fraction: share of `device_bytes` for everything here.
        max_context: tokens of the longest sequence served; None is the model's context.
        moving: bytes kept for experts that move.

    Raises:
        PlanError: the plan is of another model, or asks for a weight format that is not known.
    """
    check_model(plan, spec)
    pool = plan.pool_of(rank)
    weights = rank_weights(spec, pool, plan.num_slots(rank), activation_bytes)
    length = _round_up(max_context or spec.context_length, page_size)
    tokens = (max_tokens_per_step, max_sequences)
    working = working_space(spec, plan, rank, activation_bytes, *tokens, max_length=length)
    page_bytes = 0
    if pool.role != "experts":
        page_bytes = page_size * cache_elements(spec, pool.tensor_parallel) * activation_bytes
    budget = int(device_bytes * memory_fraction)
    left = budget - sum(weights.values()) - working - moving
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
        moving=moving,
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


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _pages(asked: int | None, left: int, page_bytes: int) -> int:
    if page_bytes == 0:
        return 0
    return asked or max(1, left // page_bytes)
