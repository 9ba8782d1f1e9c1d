"""Experts, replicas and weights over the ranks of one EP group, with a bound and the gap to it.

Shapes: L MoE layers, N ranks.
"""

from dataclasses import dataclass, replace

import numpy as np

from moe_placement.solver.experts.binding import what_binds
from moe_placement.solver.experts.bound import lower_bounds
from moe_placement.solver.experts.even_migrate import migrate_even
from moe_placement.solver.experts.fresh import fresh_layout
from moe_placement.solver.experts.layout import LEAST_SHARE
from moe_placement.solver.experts.migrate import migrate
from moe_placement.solver.experts.possible import check_possible, even_slots, most_slots
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.experts.risk import seconds_to_choose_by
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementResult:
    """Attributes:
    step_seconds: the sum over layers of the slowest rank's seconds.
    lower_bound: of step_seconds, for any placement and any weights.
    layer_seconds_L: the slowest rank's seconds in each layer.
    layer_bound_L: their lower bounds.
    expected_L: seconds of each layer that placements are chosen by: where drift is minded, what
        it is expected to make of them; else layer_seconds_L.
    binding: what step_seconds is due to: "expert bytes", "tokens (FLOPs)", "link", "fixed costs",
        "slots", "groups", "domains" or "bytes to move".
    moved_bytes: of experts to load, coming from the old placement; 0 without one.
    """

    placement: ExpertPlacement
    step_seconds: float
    lower_bound: float
    layer_seconds_L: Floats
    layer_bound_L: Floats
    expected_L: Floats
    binding: str
    moved_bytes: float = 0.0

    @property
    def gap(self) -> float:
        """How much slower than the bound, as a share of it; 0 where both are 0."""
        if self.step_seconds <= self.lower_bound:
            return 0.0
        return self.step_seconds / self.lower_bound - 1.0 if self.lower_bound > 0 else float("inf")


def place_experts(problem: ExpertProblem, *, seed: int = 0) -> PlacementResult:
    """Place every expert of every layer so that steps are as short as can be found.

    The cost of a layer is its slowest rank's: the rank's curve at the bytes of the experts it
    reads and the FLOPs of its rows, and the link's seconds for these rows; a replica with `rows`
    in the mean is read with probability 1 - exp(-rows). Replicas that do not make the step shorter
    are left out, and their slots stay empty (-1); but with `even` all slots are used.

    Args:
        seed: the same problem and seed give the same placement.

    Raises:
        PlacementImpossibleError: slots, domains, nodes or bytes to move are short; it says by how
            much.
        ValueError: rows that are negative or not finite.
    """
    check_possible(problem)
    num_experts = problem.rows_LE.shape[1]
    problem = replace(problem, slots_N=np.minimum(problem.slots_N, num_experts))
    if problem.even:
        problem = even_slots(problem)
    rng = np.random.default_rng(seed)
    costs = RankCosts.of(problem)
    bounds = lower_bounds(problem, costs)
    layout = fresh_layout(problem, costs, bounds, rng)
    fresh_seconds, moved = float(layout.slowest(costs).sum()), 0.0
    if problem.old is not None:
        way = migrate_even if problem.even else migrate
        layout, moved = way(problem, costs, bounds, layout, most_slots(problem), rng)
    seconds_L = layout.slowest(costs)
    return PlacementResult(
        placement=layout.placement(num_experts, least_share=0.0 if problem.spread else LEAST_SHARE),
        step_seconds=float(seconds_L.sum()),
        lower_bound=float(bounds.seconds_L.sum()),
        layer_seconds_L=seconds_L,
        layer_bound_L=bounds.seconds_L,
        expected_L=seconds_to_choose_by(costs, layout, bounds.seconds_L),
        binding=what_binds(problem, costs, bounds, layout, fresh_seconds),
        moved_bytes=moved,
    )
