"""What a layout is expected to need once load has changed since the plan was made.

Shapes: L layers, N ranks.
"""

import numpy as np
import scipy

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats

# Standard deviation of an expert's rows over their mean, from one plan to the next.
_VARIATION = 0.15


def seconds_at_risk(costs: RankCosts, layout: Layout, least_L: Floats) -> Floats:
    """Seconds of the slowest of like ranks once the rows of experts have changed, each by itself:
    Chernoff's bound of the mean of the largest of N normal variables. The smaller a rank's parts,
    and the fewer ranks have large ones, the less there is to fear.

    Args:
        least_L: seconds that a layer needs at least, by which the change is measured.
    """
    reads_LN, rows_LN = layout.reads_by_rank(), layout.rows_by_rank()
    mean_LN = costs.seconds(reads_LN, rows_LN)
    change_LN = _VARIATION * np.sqrt(layout.by_rank(layout.rows_LS**2))
    deviation_LN = costs.seconds(reads_LN, rows_LN + change_LN) - mean_LN
    unit_L1 = np.maximum(least_L[:, None] * _VARIATION, 1e-300)
    rate = np.sqrt(2 * np.log(len(layout.slots_N) + 1))
    power_LN = rate * mean_LN / unit_L1 + (rate * deviation_LN / unit_L1) ** 2 / 2
    seconds_L: Floats = scipy.special.logsumexp(power_LN, axis=1) / rate * unit_L1[:, 0]
    return seconds_L


def seconds_to_choose_by(costs: RankCosts, layout: Layout, least_L: Floats) -> Floats:
    """Of like ranks that read weights, at risk: their best weights are far from even, and uneven
    parts lose by drift more than they gain on the load that was seen. Else of that load: where
    rows alone cost, balance on it is what is asked for, and unlike ranks gain more by theirs."""
    if costs.num_kinds == 1 and costs.per_read_PN.any():
        return seconds_at_risk(costs, layout, least_L)
    return layout.slowest(costs)
