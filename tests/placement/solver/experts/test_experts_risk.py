"""What a layout is expected to need under drift: the same without it, less for small parts."""

import numpy as np
import pytest
from moe_placement.bench.instances import Part, real_devices, skewed_rows
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.experts.risk import seconds_at_risk, seconds_to_choose_by
from moe_placement.solver.place import place_experts
from moe_placement.solver.problem import ExpertProblem, Floats


def on_h20(rows_LE: Floats, num_ranks: int, slots: int) -> ExpertProblem:
    return real_devices(rows_LE, (Part("h20", "fp8", num_ranks, slots),))


def layout_of(rows_S: Floats) -> Layout:
    layout = Layout.empty(1, np.full(2, len(rows_S) // 2))
    layout.expert_LS[0], layout.rows_LS[0] = np.arange(len(rows_S)), rows_S
    return layout


def test_small_parts_have_less_to_fear_than_large_ones() -> None:
    problem = on_h20(np.full((1, 8), 1000.0), 2, 4)
    costs = RankCosts.of(problem)
    small = layout_of(np.full(8, 1000.0))
    large = layout_of(np.array([3994.0, 2.0, 2.0, 2.0] * 2))
    least_L = small.slowest(costs)
    assert large.slowest(costs) == pytest.approx(least_L)
    at_risk = [float(seconds_at_risk(costs, one, least_L)[0]) for one in (small, large)]
    assert least_L[0] < at_risk[0] < at_risk[1]
    assert seconds_to_choose_by(costs, large, least_L)[0] == at_risk[1]


def test_where_reading_binds_more_rows_cost_nothing() -> None:
    problem = on_h20(np.full((1, 8), 4.0), 2, 4)
    costs = RankCosts.of(problem)
    even = layout_of(np.full(8, 4.0))
    odd = layout_of(np.array([10.0, 2.0, 2.0, 2.0] * 2))
    least_L = even.slowest(costs)
    assert reads(np.array([10.0, 2.0, 2.0, 2.0])).sum() < reads(np.full(4, 4.0)).sum()
    assert seconds_at_risk(costs, odd, least_L) < seconds_at_risk(costs, even, least_L)


def test_like_devices_meet_drifted_load_with_smaller_parts() -> None:
    """Rows that change after the plan was made, every expert's by itself."""
    rng = np.random.default_rng(0)
    seen_LE = skewed_rows(2, 256, 4096 * 8.0, seed=0)
    problem = on_h20(seen_LE, 32, 9)
    result = place_experts(problem)
    assert result.gap < 0.05
    costs, placement = RankCosts.of(problem), result.placement
    expert_LS = np.maximum(placement.expert_LS, 0)
    needed = []
    for _ in range(40):
        met_LE = seen_LE * rng.lognormal(0.0, 0.15, seen_LE.shape)
        rows_LS = np.take_along_axis(met_LE, expert_LS, axis=1) * placement.weight_LS
        of_rank_LN = np.stack(
            [(rows_LS * (placement.rank_LS == rank)).sum(1) for rank in range(32)], axis=1
        )
        read_LN = np.stack(
            [(reads(rows_LS) * (placement.rank_LS == rank)).sum(1) for rank in range(32)], axis=1
        )
        needed.append(costs.seconds(read_LN, of_rank_LN).max(1))
    assert np.mean(needed) < 1.17 * result.lower_bound / 2
