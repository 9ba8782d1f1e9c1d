"""No failure domain holds all replicas of an expert, in what is bought as in what is given."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.capacity.search import find_capacity
from moe_placement.capacity.traffic import find_traffic
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.layout import device_layout
from moe_placement.plan import Plan
from moe_placement.solver.constraints import Constraints, InfeasibleError
from moe_placement.solver.solve import solve
from pool_cases import CHAT, COSTS, LEVELS, QWEN, cluster, group, require_fit

SPREAD = Constraints(spread=True, mixing="never")
ASKED = {"objective": LEVELS, "coefficients": COSTS}


def require_spread(plan: Plan, on: ClusterSpec) -> None:
    """Whichever domain fails, each phase still has every expert; for plans that use all devices."""
    assert plan.num_ranks == on.num_devices
    domain_N = device_layout(on).domain_N
    phases = {pool.role for pool in plan.pools}
    for phase in phases:
        ranks = [rank for pool in plan.pools if pool.role == phase for rank in pool.ranks]
        for lost in set(domain_N.tolist()):
            left = [rank for rank in ranks if domain_N[rank] != lost]
            for layer in plan.layers.values():
                held = {expert for rank in left for expert in layer.slots[rank]}
                assert held == set(range(QWEN.num_experts))


def test_one_worker_over_two_nodes_takes_traffic_as_it_takes_a_plan() -> None:
    """Its best worker without the rule has room for one copy of the experts alone."""
    engine = replace(SPREAD, runnable_by="engine")
    on = cluster(group("h100_sxm", 2, 2))
    answer = find_traffic(QWEN, on, CHAT, constraints=engine, **ASKED)
    require_spread(answer.solution.plan, on)
    asked = replace(CHAT, rate=answer.request_rate * 0.95)
    require_spread(solve(QWEN, on, asked, constraints=engine, **ASKED).plan, on)
    bought = find_capacity(QWEN, on, asked, goal="smallest", constraints=engine, **ASKED)
    require_spread(bought.solution.plan, bought.cluster)


def test_where_one_worker_serves_the_rate_two_are_bought() -> None:
    on = cluster(group("h100_sxm", 4, 1, price=3.0))
    asked = replace(CHAT, rate=2.0)
    alone = find_capacity(QWEN, on, asked, constraints=replace(SPREAD, spread=False), **ASKED)
    assert alone.num_devices == 1
    bought = find_capacity(QWEN, on, asked, constraints=SPREAD, **ASKED)
    assert bought.num_devices == 2
    require_spread(bought.solution.plan, bought.cluster)
    require_fit(QWEN, bought.solution.plan, bought.cluster, SPREAD)
    assert all(other.num_devices >= 2 for other in bought.alternatives)


def test_nodes_are_bought_from_two_racks() -> None:
    racks = cluster(replace(group("h100_sxm", 4, 1, price=3.0), nodes_per_failure_domain=2))
    bought = find_capacity(QWEN, racks, replace(CHAT, rate=2.0), constraints=SPREAD, **ASKED)
    assert bought.num_devices == 2
    assert np.unique(device_layout(bought.cluster).domain_N).tolist() == [0, 1]
    require_spread(bought.solution.plan, bought.cluster)


@pytest.mark.parametrize("nodes_each", [1, 2])
def test_one_domain_cannot_be_spread_over(nodes_each: int) -> None:
    alone = replace(group("h100_sxm", nodes_each, 2, 3.0), nodes_per_failure_domain=nodes_each)
    with pytest.raises(InfeasibleError, match="spread needs each expert in 2 failure domains"):
        find_capacity(QWEN, cluster(alone), CHAT, constraints=SPREAD, **ASKED)
