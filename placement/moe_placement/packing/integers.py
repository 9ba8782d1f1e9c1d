"""Integer programs, solved by HiGHS: answers are whole numbers, and keep every limit exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from moe_placement.packing.problem import Floats, Ints

# Nodes come before seconds, for the same arguments shall give the same answer on any machine.
_MOST_NODES = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class IntegerAnswer:
    """Attributes:
    x: columns that are whole numbers; others are rounded.
    bound: no answer costs less.
    """

    x: Ints
    bound: float


@dataclass(frozen=True, slots=True, eq=False)
class IntegerProgram:
    """Least cost under limits.

    Attributes:
        is_whole: which columns are whole numbers; all where it is left out.
    gap: the share by which an answer may cost more than the best.
    """

    costs: Floats
    limits: "Sequence[scipy.optimize.LinearConstraint]"
    bounds: "scipy.optimize.Bounds"
    is_whole: Floats | None = None
    gap: float = 0.0

    def solve(self, time_limit: float | None) -> IntegerAnswer | None:
        """The best answer found within the nodes allowed.

        Returns:
            None where there is none, or where seconds ran out: what is found by then depends on
            the machine.
        """
        whole = np.ones(len(self.costs)) if self.is_whole is None else self.is_whole
        options = {"node_limit": _MOST_NODES, "mip_rel_gap": self.gap}
        if time_limit is not None:
            options["time_limit"] = time_limit
        found = scipy.optimize.milp(
            self.costs,
            constraints=self.limits,
            bounds=self.bounds,
            integrality=whole,
            options=options,
        )
        out_of_time = found.status == 1 and found.mip_node_count < _MOST_NODES
        if found.x is None or out_of_time:
            return None
        return IntegerAnswer(np.rint(found.x).astype(np.int64), found.mip_dual_bound)
