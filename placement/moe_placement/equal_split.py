"""The simplest plan: every layer's experts in equal contiguous blocks, one replica each."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan


def equal_split(
    model: str, num_experts: int, moe_layers: Iterable[int], pools: Sequence[PoolPlan]
) -> Plan:
    """Spread the experts over the ranks of each EP group, whatever their roles.

    The first `num_experts % num_ranks` ranks of a group hold one expert more than the others;
    with more ranks than experts the last ranks hold none. A dense model has no MoE layers and 0
    experts.

    Raises:
        PlanError: the pools' ranks are not 0..n-1, or MoE layers come without experts.
    """
    layers = tuple(moe_layers)
    if layers and num_experts < 1:
        raise PlanError(f"{model!r} has {len(layers)} MoE layers but {num_experts} experts")
    plan = Plan(model, num_experts, tuple(pools), {})
    plan.validate()
    slots: list[tuple[int, ...]] = [()] * plan.num_ranks
    for ranks in plan.ep_groups().values():
        for rank, block in zip(sorted(ranks), _blocks(num_experts, len(ranks)), strict=True):
            slots[rank] = block
    weights = tuple((1.0,) * len(block) for block in slots)
    placement = LayerPlan(tuple(slots), weights)
    return Plan(model, num_experts, tuple(pools), dict.fromkeys(layers, placement))


def _blocks(num_items: int, num_blocks: int) -> Iterable[tuple[int, ...]]:
    size, remainder = divmod(num_items, num_blocks)
    sizes = [size + (block < remainder) for block in range(num_blocks)]
    return (tuple(range(start, end)) for start, end in pairwise(accumulate(sizes, initial=0)))
