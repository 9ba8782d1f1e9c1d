"""Plan ranks as an engine config counts them: pool by pool, from 0."""

from dataclasses import replace

from moe_placement.plan import LayerPlan, Plan


def by_pools(plan: Plan) -> Plan:
    """The same plan with its ranks numbered in the order of its pools."""
    old_ranks = [rank for pool in plan.pools for rank in pool.ranks]
    if old_ranks == sorted(old_ranks):
        return plan
    number = {old: new for new, old in enumerate(old_ranks)}
    pools = tuple(
        replace(pool, ranks=tuple(number[rank] for rank in pool.ranks)) for pool in plan.pools
    )
    known: dict[int, LayerPlan] = {}
    for layer in plan.layers.values():
        if id(layer) not in known:
            known[id(layer)] = _reordered(layer, old_ranks)
    layers = {index: known[id(layer)] for index, layer in plan.layers.items()}
    return replace(plan, pools=pools, layers=layers)


def _reordered(layer: LayerPlan, old_ranks: list[int]) -> LayerPlan:
    return LayerPlan(
        slots=tuple(layer.slots[rank] for rank in old_ranks),
        weights=tuple(layer.weights[rank] for rank in old_ranks),
    )
