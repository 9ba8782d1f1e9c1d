"""The simplest plan: every layer's experts in equal contiguous blocks, one replica each."""

from collections.abc import Iterable, Sequence

from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan


def equal_split(
    model: str, num_experts: int, moe_layers: Iterable[int], pools: Sequence[PoolPlan]
) -> Plan:
    """Spread the experts over the ranks of all pools, whatever their roles.

    The first `num_experts % num_ranks` ranks hold one expert more than the others; with more
    ranks than experts the last ranks hold none. A dense model has no MoE layers and 0 experts.

    Raises:
        PlanError: the pools' ranks are not 0..n-1, or MoE layers come without experts.
    """
    layers = tuple(moe_layers)
    if layers and num_experts < 1:
        raise PlanError(f"{model!r} has {len(layers)} MoE layers but {num_experts} experts")
    slots = _blocks(num_experts, sum(len(pool.ranks) for pool in pools))
    weights = tuple((1.0,) * len(block) for block in slots)
    placement = LayerPlan(slots, weights)
    plan = Plan(model, num_experts, tuple(pools), dict.fromkeys(layers, placement))
    plan.validate()
    return plan


def _blocks(num_items: int, num_blocks: int) -> tuple[tuple[int, ...], ...]:
    if num_blocks == 0:
        return ()
    size, remainder = divmod(num_items, num_blocks)
    starts = [block * size + min(block, remainder) for block in range(num_blocks + 1)]
    return tuple(tuple(range(starts[b], starts[b + 1])) for b in range(num_blocks))
