"""How evenly a plan spreads expert load, beside an equal split of the same ranks.

Shapes: L MoE layers, E experts, N ranks of one EP group.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.equal_split import equal_split
from moe_placement.plan import LayerPlan, Plan, PoolPlan

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LoadSpread:
    """Rows that each rank gets, over the mean rank's, of one EP group.

    Attributes:
        group: its number in the plan.
        layers: the model's layer numbers.
    """

    group: int
    layers: tuple[int, ...]
    equal_LN: Floats
    planned_LN: Floats


def load_spread(plan: Plan, shares_LE: Floats, group: int = 0) -> LoadSpread:
    """Price a plan's first EP group, or another, by the rows of its ranks.

    Args:
        shares_LE: share of each layer's rows that each expert gets, in the order of the plan's
            layers.
    """
    ranks = plan.ep_groups()[group]
    layers = tuple(sorted(plan.layers))
    pool = PoolPlan("all", "cpu", tuple(range(len(ranks))))
    split = equal_split(plan.model, plan.num_experts, layers, (pool,))
    everyone = tuple(range(len(ranks)))
    return LoadSpread(
        group,
        layers,
        np.stack(
            [_rows(split.layers[i], everyone, s) for i, s in zip(layers, shares_LE, strict=True)]
        ),
        np.stack([_rows(plan.layers[i], ranks, s) for i, s in zip(layers, shares_LE, strict=True)]),
    )


def _rows(layer: LayerPlan, ranks: tuple[int, ...], shares_E: Floats) -> Floats:
    rows_N = np.array(
        [
            sum(shares_E[e] * w for e, w in zip(layer.slots[r], layer.weights[r], strict=True))
            for r in ranks
        ]
    )
    mean_N: Floats = rows_N * (len(ranks) / shares_E.sum())
    return mean_N
