"""Ranks, EP groups and failure domains of deployments, and what a bridge costs."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec, GroupLink
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.serving.together import request_shape
from moe_placement.solver.constraints import Constraints, InfeasibleError
from moe_placement.solver.pools.counts import NodePrice, Offer, cheapest, most_served
from moe_placement.solver.pools.merged_cluster import merge
from moe_placement.solver.pools.plan_builder import workers_are_spread
from moe_placement.solver.pools.rank_layout import lay_out
from moe_placement.solver.solve import solve
from moe_placement.solver.workers.bridge import Bridge, link_between
from moe_placement.solver.workers.candidate import make_candidate, rank_costs
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.part_split import split_experts
from moe_placement.solver.workers.placing import ExpertLoad
from moe_placement.solver.workers.room import find_room
from moe_placement.solver.workers.worker import Deployment, Part, WorkerKind
from pool_cases import CHAT, COSTS, LEVELS, QWEN, cluster, group, require_fit

TWO = cluster(group("h100_sxm", 4, 2, name="hopper"), group("h20", 2, 4, name="twenty"))
SMALL = WorkerKind((Part(0, 2, "fp8"),))
LARGE = WorkerKind((Part(0, 4, "fp8", 2),))
# Three times as slow as its peaks say.
MEASURED = ExpertCurve((Plane(1e-5, 1e-12, 0.0), Plane(1e-5, 0.0, 5e-15)))
MIXED = WorkerKind((Part(0, 2, "fp8"), Part(1, 4, "fp8", experts_only=True)))


def context(on: ClusterSpec = TWO) -> CostContext:
    return CostContext(QWEN, on, COSTS)


def test_ranks_count_devices_group_by_group_and_groups_count_workers() -> None:
    deployment = Deployment.of({(MIXED, "decode"): 2, (LARGE, "prefill"): 1})
    layout = lay_out(TWO, deployment, spread=False)
    by_name = {pool.name: pool for pool in layout.pools}
    assert by_name["hopper-prefill"].ranks == (0, 1, 2, 3)
    assert by_name["hopper-decode"].ranks == (4, 5, 6, 7)
    assert by_name["twenty"].ranks == tuple(range(8, 16))
    assert (by_name["twenty"].role, by_name["hopper-prefill"].tensor_parallel) == ("experts", 2)
    groups: dict[int, tuple[int, ...]] = {}
    for pool in layout.pools:
        for number, ranks in pool.ep_groups().items():
            groups[number] = groups.get(number, ()) + ranks
    assert groups == {0: (0, 1, 2, 3), 1: (4, 5, 8, 9, 10, 11), 2: (6, 7, 12, 13, 14, 15)}
    assert layout.device_of_rank == tuple(range(16))


def test_unused_devices_have_no_rank() -> None:
    tail = WorkerKind((Part(1, 4, "fp8"),))
    layout = lay_out(TWO, Deployment.of({(SMALL, "both"): 1, (tail, "both"): 1}), spread=False)
    assert layout.device_of_rank == (0, 1, 8, 9, 10, 11)
    assert [pool.ranks for pool in layout.pools] == [(0, 1), (2, 3, 4, 5)]


def test_like_workers_are_dealt_over_failure_domains() -> None:
    racks = cluster(replace(TWO.groups[0], nodes_per_failure_domain=2))
    deployment = Deployment.of({(SMALL, "both"): 2})
    together = lay_out(racks, deployment, spread=False)
    dealt = lay_out(racks, deployment, spread=True)
    assert together.device_of_rank == (0, 1, 2, 3)
    assert dealt.device_of_rank == (0, 1, 4, 5)
    assert not workers_are_spread(context(racks), together)
    assert workers_are_spread(context(racks), dealt)


def test_one_worker_is_spread_by_replicas_in_two_domains() -> None:
    spread = Constraints(spread=True, runnable_by="engine")
    racks = cluster(group("h100_sxm", 2, 2))
    solution = solve(QWEN, racks, CHAT, objective=LEVELS, coefficients=COSTS, constraints=spread)
    for placed in solution.plan.layers.values():
        halves = [{e for rank in ranks for e in placed.slots[rank]} for ranks in ((0, 1), (2, 3))]
        assert halves[0] == halves[1] == set(range(QWEN.num_experts))
    require_fit(QWEN, solution.plan, racks, spread)
    with pytest.raises(InfeasibleError, match="spread needs each expert in 2 failure domains"):
        solve(
            QWEN,
            cluster(group("h100_sxm", 1, 4)),
            CHAT,
            objective=LEVELS,
            coefficients=COSTS,
            constraints=spread,
        )


def test_groups_that_differ_in_name_alone_are_searched_as_one() -> None:
    first, second = (group("h100_sxm", 1, 4, name=name) for name in ("left", "right"))
    other = group("h20", 1, 4)
    merged = merge(cluster(first, other, second), Constraints())
    assert [one.num_devices for one in merged.merged.groups] == [8, 4]
    wide = WorkerKind((Part(0, 3, "fp8"),))
    handed = merged.distribute(Deployment.of({(wide, "both"): 2, (SMALL, "both"): 1}))
    used = handed.devices_of_groups()
    # The small worker finds no room beside the wide ones, whose groups have one device left each.
    assert used == {0: 3, 2: 3}
    assert {merged.as_merged(entry.kind) for entry in handed.workers} == {wide}
    dear = merge(cluster(first, replace(second, price_per_hour=2.0)), Constraints())
    assert len(dear.merged.groups) == 2
    asked = Constraints(formats={"left": ("bfloat16",)})
    assert len(merge(cluster(first, second), asked).merged.groups) == 2


def test_counts_match_prefill_to_decode_within_the_devices() -> None:
    offers = [Offer(SMALL, "prefill", 3.0), Offer(SMALL, "decode", 1.0), Offer(LARGE, "both", 1.0)]
    best = most_served(offers, [8, 8])
    assert best == Deployment.of({(SMALL, "prefill"): 1, (SMALL, "decode"): 3})
    nodes = [NodePrice(2.0, 2), NodePrice(1.0, 4)]
    least = cheapest(offers, [8, 8], 1.9, nodes)
    assert least == Deployment.of({(SMALL, "prefill"): 1, (SMALL, "decode"): 2})
    assert cheapest(offers, [8, 8], 3.1, nodes) is None
    assert most_served([], [8]) is None


def test_a_link_that_is_given_counts_and_else_the_slower_network() -> None:
    hopper, twenty = TWO.groups
    assert link_between(TWO, hopper, twenty).bandwidth == pytest.approx(25e9 * 0.7)
    link = GroupLink(between=("twenty", "hopper"), bandwidth=5e9, latency=1e-3)
    linked = replace(TWO, links=(link,))
    assert link_between(linked, hopper, twenty) is link
    tokens_P, mass_LP = np.array([64.0, 0.0]), np.array([[0.5, 0.5]])
    slow, fast = (
        Bridge.of(context(on), MIXED.parts).layer_seconds(tokens_P, mass_LP)[0]
        for on in (linked, TWO)
    )
    assert slow > 5 * fast > 0


def test_a_token_crosses_once_however_many_experts_it_finds() -> None:
    bridge = Bridge.of(context(), MIXED.parts)
    [[_, tenth], [_, fiftieth]] = bridge.crossing_share(np.array([[0.9, 0.1], [0.98, 0.02]]))
    assert tenth == pytest.approx(0.57, abs=0.005)
    assert fiftieth == pytest.approx(0.15, abs=0.005)


def test_experts_are_split_by_speed_and_room() -> None:
    costs = rank_costs(context(), WorkerKind((Part(0, 1, "fp8"), Part(1, 1, "fp8"))))
    rows_LE = np.full((1, 128), 4096.0)
    free = split_experts(costs, np.ones(2), np.array([128.0, 128.0]), rows_LE)
    fast, slow = np.bincount(free[0], minlength=2)
    assert fast > 4 * slow > 0
    tight = split_experts(costs, np.ones(2), np.array([64.0, 64.0]), rows_LE)
    assert np.bincount(tight[0]).tolist() == [64, 64]


@pytest.mark.parametrize("curves", [{}, {"fp8": MEASURED}])
def test_experts_of_like_parts_cost_what_the_step_model_says(
    curves: dict[str, ExpertCurve],
) -> None:
    device = replace(find_device("h100_sxm"), curves=curves)
    halves_of = (group("h100_sxm", 1, 4, name=name) for name in ("left", "right"))
    twins = cluster(*(replace(half, device=device) for half in halves_of))
    halves = WorkerKind((Part(0, 4, "fp8"), Part(1, 4, "fp8")), 0.4)
    load = ExpertLoad.of(None, len(QWEN.moe_layers), QWEN.num_experts)
    request = request_shape(CHAT)
    room = find_room(QWEN, twins, halves, CHAT, Constraints())
    mixed = make_candidate(context(twins), halves, room, load, request, Constraints())
    whole = context(twins).step_model(Part(0, 8, "fp8"))
    assert mixed.share_P.tolist() == pytest.approx([0.5, 0.5])
    for shape in (request.step(0.0, 8.0), request.step(0.0, 512.0), request.step(65536.0, 0.0)):
        expected = whole.parts(shape)["experts"]
        assert mixed.timer.parts(shape)["experts"] == pytest.approx(expected, rel=0.05)
    assert mixed.timer.seconds(StepShape()) == 0.0
