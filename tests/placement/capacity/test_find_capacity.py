"""The least cluster that serves a rate: none is cheaper, and it does serve."""

from dataclasses import replace

import pytest
from moe_placement.capacity.answer import ParetoPoint
from moe_placement.capacity.pareto import undominated
from moe_placement.capacity.search import find_capacity
from moe_placement.capacity.traffic import find_traffic
from moe_placement.serving.workload import Objective
from moe_placement.solver.constraints import ConstraintError, Constraints, InfeasibleError
from moe_placement.solver.solve import solve
from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind
from pool_cases import CHAT, COSTS, LEVELS, QWEN, cluster, group, market, require_fit, shipped_spec

# Few kinds of workers, so that all purchases can be tried.
PLAIN = Constraints(
    tensor_parallel=(1,), mixing="never", formats={"h100_sxm": ("fp8",), "h20": ("fp8",)}
)
ALONE = replace(PLAIN, formats={"h100_sxm": ("fp8",)})
OFFERED = cluster(group("h100_sxm", 3, 1, price=3.0), group("h20", 3, 1, price=1.2))


def cheapest_by_trying(rate: float) -> float:
    found = market(OFFERED, replace(CHAT, rate=rate), constraints=PLAIN)
    phases: tuple[Phase, ...] = ("both", "prefill", "decode")
    entries = [(kind, phase) for phase in phases for kind in found.rates.candidates]
    prices: list[float] = []

    def extend(counts: dict[tuple[WorkerKind, Phase], int], first: int) -> None:
        deployment = Deployment.of(counts)
        used = deployment.devices_of_groups()
        if any(used.get(index, 0) > 3 for index in range(2)):
            return
        is_pure = len({entry.phase == "both" for entry in deployment.workers}) == 1
        price = deployment.cost_per_hour(OFFERED)
        if is_pure and price is not None and found.rates.capacity(deployment) >= rate:
            prices.append(price)
        for index in range(first, len(entries)):
            extend({**counts, entries[index]: counts.get(entries[index], 0) + 1}, index)

    extend({}, 0)
    return min(prices)


@pytest.mark.parametrize("rate", [6.0, 14.0])
def test_no_purchase_is_cheaper(rate: float) -> None:
    answer = find_capacity(
        QWEN,
        OFFERED,
        replace(CHAT, rate=rate),
        objective=LEVELS,
        constraints=PLAIN,
        coefficients=COSTS,
    )
    assert answer.cost_per_hour == pytest.approx(cheapest_by_trying(rate))
    prediction = answer.solution.prediction
    assert prediction.request_rate == pytest.approx(rate)
    assert prediction.ttft_tail <= LEVELS.ttft
    assert prediction.tpot_tail <= LEVELS.tpot
    assert answer.alternatives[0].loses_because == ""
    assert answer.alternatives[0].cost_per_hour == answer.cost_per_hour
    require_fit(QWEN, answer.solution.plan, answer.cluster, PLAIN)


def test_lower_prices_and_more_offers_never_cost_more() -> None:
    def cost(h20_price: float, num_h20: int) -> float:
        h20s = [group("h20", num_h20, 1, price=h20_price)] if num_h20 else []
        offered = cluster(group("h100_sxm", 3, 1, price=3.0), *h20s)
        answer = find_capacity(
            QWEN,
            offered,
            replace(CHAT, rate=12.0),
            objective=LEVELS,
            constraints=PLAIN if num_h20 else ALONE,
            coefficients=COSTS,
        )
        assert answer.cost_per_hour is not None
        return answer.cost_per_hour

    costs = [cost(2.9, 0), cost(2.9, 2), cost(0.5, 2)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_the_smallest_cluster_needs_no_prices() -> None:
    offered = cluster(group("h100_sxm", 4, 1), group("h20", 4, 1))
    asked = {"objective": LEVELS, "constraints": PLAIN, "coefficients": COSTS}
    answer = find_capacity(QWEN, offered, replace(CHAT, rate=12.0), goal="smallest", **asked)
    assert answer.cost_per_hour is None
    assert answer.num_devices == answer.alternatives[0].num_devices <= 4
    for other in answer.alternatives[1:]:
        assert other.num_devices >= answer.num_devices
        assert "more devices" in other.loses_because or "the same" in other.loses_because
    with pytest.raises(ConstraintError, match="'h100_sxm' has no price_per_hour; give it one"):
        find_capacity(QWEN, offered, replace(CHAT, rate=12.0), **asked)
    with pytest.raises(ConstraintError, match="give the workload a rate"):
        find_capacity(QWEN, offered, replace(CHAT, rate=0.0), goal="smallest", **asked)


def test_too_high_a_rate_is_told_with_what_can_be_had() -> None:
    with pytest.raises(InfeasibleError, match=r"5000 requests/s .* on these 6 devices serves \d"):
        find_capacity(
            QWEN,
            OFFERED,
            replace(CHAT, rate=5000.0),
            objective=LEVELS,
            constraints=PLAIN,
            coefficients=COSTS,
        )


def test_traffic_is_the_most_that_a_cluster_serves() -> None:
    on = cluster(group("h100_sxm", 1, 2))
    asked = {"objective": LEVELS, "coefficients": COSTS}
    answer = find_traffic(QWEN, on, CHAT, **asked)
    assert answer.throughput == pytest.approx(answer.request_rate * CHAT.output_tokens)
    speeds = [point.speed for point in answer.pareto]
    throughputs = [point.throughput_per_device for point in answer.pareto]
    assert len(speeds) >= 3
    assert speeds == sorted(speeds, reverse=True)
    assert throughputs == sorted(throughputs)
    assert all("h100_sxm" in point.configuration for point in answer.pareto)
    at_most = replace(CHAT, rate=answer.request_rate * 0.98)
    assert solve(QWEN, on, at_most, **asked).prediction.tpot_tail <= LEVELS.tpot
    with pytest.raises(InfeasibleError, match="requests/s are asked for"):
        solve(QWEN, on, replace(CHAT, rate=answer.request_rate * 1.05), **asked)
    looser = find_traffic(
        QWEN, on, CHAT, objective=Objective(ttft=4.0, tpot=0.06, percentile=0.9), coefficients=COSTS
    )
    assert looser.request_rate > answer.request_rate


def test_pareto_points_are_those_that_nothing_beats() -> None:
    points = [
        ParetoPoint(throughput_per_device=t, speed=s, configuration=f"{t}/{s}")
        for t, s in ((1.0, 9.0), (2.0, 9.0), (1.5, 5.0), (3.0, 5.0), (2.9, 1.0))
    ]
    assert [point.configuration for point in undominated(points)] == ["2.0/9.0", "3.0/5.0"]


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["cheapest", "smallest"])
def test_deepseek_v3_over_three_pools_of_512_devices_in_time(goal: str) -> None:
    from time import process_time

    spec = shipped_spec("deepseek_v3")
    offered = cluster(
        group("h20", 32, 8, price=1.2),
        group("h200_sxm", 16, 8, price=3.0),
        group("atlas_a2_376t", 16, 8, price=1.0),
    )
    start = process_time()
    answer = find_capacity(
        spec,
        offered,
        replace(CHAT, rate=100.0),
        goal=goal,  # type: ignore[arg-type]
        objective=Objective(ttft=3.0, tpot=0.05, percentile=0.9),
        coefficients=COSTS,
    )
    assert process_time() - start < 30
    require_fit(spec, answer.solution.plan, answer.cluster, Constraints())
