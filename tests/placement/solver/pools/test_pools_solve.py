"""Whole plans: what is chosen, why, that it fits, and that no other counts serve more."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan
from moe_placement.plan_diff import diff
from moe_placement.plan_file import load, save
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import Constraints, InfeasibleError
from moe_placement.solver.pools.question import Market
from moe_placement.solver.pools.search import CLASSES, best_of_class, worth
from moe_placement.solver.solution import Solution
from moe_placement.solver.solve import find_best, solve
from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind
from pool_cases import CHAT, COSTS, LEVELS, QWEN, cluster, group, market, require_fit, shipped_spec

PAIR = cluster(group("h100_sxm", 1, 2))
QUAD = cluster(group("h100_sxm", 1, 4))


def reason(solution: Solution, subject: str) -> str:
    return next(one.reason for one in solution.choices if one.subject == subject)


def chosen(solution: Solution, subject: str) -> str:
    return next(one.chosen for one in solution.choices if one.subject == subject)


def all_deployments(found: Market) -> list[Deployment]:
    """Every way to cut the first group, in which prefill and decode workers serve each other."""
    [devices] = found.question.group_sizes
    phases: tuple[Phase, ...] = ("both", "prefill", "decode")
    entries = list(product(found.rates.candidates, phases))
    cuts: list[dict[tuple[WorkerKind, Phase], int]] = []

    def extend(counts: dict[tuple[WorkerKind, Phase], int], first: int, left: int) -> None:
        cuts.append(counts)
        for index in range(first, len(entries)):
            kind, phase = entries[index]
            if kind.num_devices <= left:
                more = {**counts, (kind, phase): counts.get((kind, phase), 0) + 1}
                extend(more, index, left - kind.num_devices)

    extend({}, 0, devices)
    return [Deployment.of(counts) for counts in cuts if counts]


@pytest.mark.parametrize(
    ("objective", "workload"),
    [
        (LEVELS, CHAT),
        (Objective(ttft=0.2, tpot=0.008, percentile=0.9), CHAT),
        (LEVELS, Workload(prompt_tokens=8000, output_tokens=100, rate=0.5)),
    ],
)
def test_no_other_counts_serve_more(objective: Objective, workload: Workload) -> None:
    plain = Constraints(tensor_parallel=(1, 2), formats={"h100_sxm": ("fp8",)})
    found = market(QUAD, workload, objective, plain)
    every = all_deployments(found)
    assert len(every) > 100
    for plan_class in CLASSES[:2]:
        phases = {"prefill", "decode"} if plan_class.apart else {"both"}
        rivals = [one for one in every if {entry.phase for entry in one.workers} == phases]
        best = best_of_class(plan_class, found.offers, [4], found.rates)
        assert best is not None
        most = max(worth(one, found.rates) for one in rivals)
        assert worth(best, found.rates) == pytest.approx(most, rel=2e-3)


def test_it_says_disaggregate_where_prompts_would_interrupt_decoding() -> None:
    workload = Workload(prompt_tokens=8000, output_tokens=200, rate=0.5)
    objective = Objective(ttft=3.0, tpot=0.006, percentile=0.9)
    solution = solve(
        QWEN,
        cluster(group("h100_sxm", 1, 8)),
        workload,
        objective=objective,
        coefficients=COSTS,
    )
    assert chosen(solution, "phases") == "apart"
    assert "together gives" in reason(solution, "phases")
    assert "fewer requests/s" in reason(solution, "phases")
    assert {pool.role for pool in solution.plan.pools} == {"prefill", "decode"}
    assert solution.prediction.tpot_tail <= objective.tpot
    assert solution.prediction.ttft_tail <= objective.ttft


def test_it_says_do_not_disaggregate_where_devices_are_few() -> None:
    solution = solve(QWEN, PAIR, CHAT, objective=LEVELS, coefficients=COSTS)
    assert chosen(solution, "phases") == "together"
    assert reason(solution, "phases").startswith("apart gives ")
    assert "fewer requests/s" in reason(solution, "phases")
    best, apart = solution.alternatives[0], solution.alternatives[1:]
    assert best.loses_because == ""
    assert any("prefill" in one.name and "fewer requests/s" in one.loses_because for one in apart)


def test_unlike_pools_are_not_mixed_where_that_is_slower() -> None:
    on = cluster(group("h100_sxm", 1, 2), group("h20", 1, 2))
    plain = Constraints(tensor_parallel=(1,))
    solution = solve(QWEN, on, CHAT, objective=LEVELS, coefficients=COSTS, constraints=plain)
    assert chosen(solution, "EP groups") == "unmixed"
    assert reason(solution, "EP groups").startswith("mixed gives ")
    assert {pool.name.split("-")[0] for pool in solution.plan.pools} == {"h100_sxm", "h20"}
    require_fit(QWEN, solution.plan, on, Constraints())


def test_a_host_takes_experts_where_device_memory_is_short() -> None:
    constraints = Constraints(formats={"l40s": ("bfloat16",)}, max_context=8192)
    short = cluster(group("l40s", 1, 1))
    with pytest.raises(
        InfeasibleError, match=r"are missing; add 1 device like l40s, or allow int4"
    ):
        solve(QWEN, short, CHAT, coefficients=COSTS, constraints=constraints)
    on = cluster(group("l40s", 1, 1), group("xeon_8592", 1, 2))
    light = replace(CHAT, rate=0.05)
    solution = solve(QWEN, on, light, coefficients=COSTS, constraints=constraints)
    roles = {pool.name: pool.role for pool in solution.plan.pools}
    assert roles == {"l40s": "both", "xeon_8592": "experts"}
    assert {pool.ep_group for pool in solution.plan.pools} == {0}
    experts = solution.plan.layers[0].slots
    assert all(experts[rank] for rank in range(3))
    require_fit(QWEN, solution.plan, on, constraints)
    assert 0 <= solution.gap < 0.2


def test_plans_fit_and_survive_their_file(tmp_path: Path) -> None:
    solution = solve(QWEN, QUAD, CHAT, objective=LEVELS, coefficients=COSTS, model="Qwen3")
    require_fit(QWEN, solution.plan, QUAD, Constraints())
    assert len(solution.memories) == solution.plan.num_ranks
    assert all(memory.fits for memory in solution.memories)
    assert [memory.rank for memory in solution.memories] == list(range(solution.plan.num_ranks))
    save(solution.plan, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == solution.plan
    assert solution.plan.model == "Qwen3"
    assert solution.lower_bound <= solution.step_seconds * (1 + 1e-9)


def test_more_devices_never_serve_less() -> None:
    served = []
    for count in (1, 2, 4):
        found = market(cluster(group("h100_sxm", 1, count)))
        served.append(max(worth(one, found.rates) for one in find_best(found, 0).values()))
    assert served == sorted(served)
    assert served[-1] > 3 * served[0]


def test_a_closed_loop_gets_the_fastest_workers() -> None:
    few = replace(CHAT, rate=0.0, concurrency=2)
    asked = {"coefficients": COSTS, "constraints": Constraints(tensor_parallel=(1,))}
    solution = solve(QWEN, PAIR, few, **asked)
    many = solve(QWEN, PAIR, replace(few, concurrency=256), **asked)
    assert solution.prediction.tpot < many.prediction.tpot
    assert solution.prediction.request_rate < many.prediction.request_rate
    best = solution.alternatives[0].prediction.request_rate
    assert all(one.prediction.request_rate <= best * 1.001 for one in solution.alternatives)
    assert solution.binding.startswith("clients: 2 in a closed loop are")
    full = solve(QWEN, PAIR, replace(few, concurrency=20_000), **asked)
    assert not full.binding.startswith("clients")


def test_the_engine_gets_one_group_that_it_serves() -> None:
    on = cluster(group("h100_sxm", 1, 4), group("atlas_a2_376t", 1, 4))
    constraints = Constraints(runnable_by="engine")
    solution = solve(QWEN, on, CHAT, coefficients=COSTS, constraints=constraints)
    assert {pool.device for pool in solution.plan.pools} == {"cuda"}
    [pool] = solution.plan.pools
    assert (pool.role, pool.weight_format, pool.tensor_parallel) == ("both", "bfloat16", 1)
    assert pool.num_ep_groups == 1
    assert solution.plan.num_ranks == 4


def test_expert_load_is_balanced_by_weight_and_replicas() -> None:
    spec = shipped_spec("qwen3_30b_a3b", num_hidden_layers=6)
    rng = np.random.default_rng(3)
    share_LE = rng.dirichlet(np.full(spec.num_experts, 0.7), len(spec.moe_layers))
    constraints = Constraints(runnable_by="engine", redundancy=0.25)
    even = solve(spec, QUAD, CHAT, coefficients=COSTS, constraints=constraints)
    solution = solve(spec, QUAD, CHAT, coefficients=COSTS, constraints=constraints, load=share_LE)

    def imbalance(plan: Plan) -> float:
        worst = []
        for row, layer in enumerate(spec.moe_layers):
            placed = plan.layers[layer]
            rows = [
                sum(share_LE[row, e] * w for e, w in zip(experts, weights, strict=True))
                for experts, weights in zip(placed.slots, placed.weights, strict=True)
            ]
            worst.append(max(rows) * len(rows))
        return float(np.mean(worst))

    assert imbalance(solution.plan) < 0.9 * imbalance(even.plan)
    assert solution.gap < 0.05
    require_fit(spec, solution.plan, QUAD, constraints)


def test_an_old_plan_is_left_with_few_moves() -> None:
    spec = shipped_spec("qwen3_30b_a3b", num_hidden_layers=4)
    rng = np.random.default_rng(4)
    share_LE = rng.dirichlet(np.full(spec.num_experts, 0.7), len(spec.moe_layers))
    constraints = Constraints(runnable_by="engine", redundancy=0.0)
    old = solve(spec, QUAD, CHAT, coefficients=COSTS, constraints=constraints).plan
    one = spec.expert_bytes("bfloat16")

    def moved(budget: float | None) -> tuple[int, Plan]:
        asked = replace(constraints, old=old, move_bytes=budget)
        plan = solve(spec, QUAD, CHAT, coefficients=COSTS, constraints=asked, load=share_LE).plan
        return sum(move.kind == "add" for move in diff(old, plan)), plan

    few, plan = moved(12.0 * one)
    many, _ = moved(None)
    assert 0 < few <= 12 < many
    assert plan.epoch == old.epoch + 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": Objective(tpot=0.0005)}, r"tpot 0\.5 ms cannot be had: the fastest step"),
        ({"objective": Objective(ttft=0.0005)}, r"ttft 0\.5 ms cannot be had: a prompt of 2000"),
        ({"workload": replace(CHAT, rate=900.0)}, r"900 requests/s are asked for, the best plan"),
        (
            {"constraints": Constraints(formats={"h100": ("fp8",)})},
            "formats names the group 'h100'; the cluster has h100_sxm",
        ),
        ({"load": np.ones((3, 4))}, "the load is of 3 layers x 4 experts"),
        ({"load": np.zeros((48, 128))}, "row 0 of the load has no rows at all"),
        (
            {"constraints": Constraints(roles={"h100_sxm": ("prefill",)})},
            "none that may decode fits and keeps to the objective; allow a group the role both",
        ),
        (
            {"constraints": Constraints(roles={"h100_sxm": ("experts",)})},
            "no group of the cluster may hold attention",
        ),
        (
            {"constraints": Constraints(formats={"h100_sxm": ("fp3",)})},
            "formats of 'h100_sxm' has 'fp3', which h100_sxm cannot compute; use ",
        ),
        (
            {"constraints": Constraints(memory_fraction=1.5)},
            r"memory_fraction 1\.5 is not within 0\.\.1",
        ),
    ],
)
def test_what_cannot_be_had_is_told_with_figures(changes: dict[str, object], sentence: str) -> None:
    asked: dict[str, object] = {"workload": CHAT, "objective": LEVELS, **changes}
    workload = asked.pop("workload")
    with pytest.raises(ValueError, match=sentence):
        solve(QWEN, PAIR, workload, coefficients=COSTS, **asked)  # type: ignore[arg-type]


def test_without_a_rate_the_plan_is_for_all_that_it_serves() -> None:
    stream = replace(CHAT, rate=0.0)
    solution = solve(QWEN, PAIR, stream, objective=LEVELS, coefficients=COSTS)
    assert solution.prediction.request_rate > CHAT.rate
    assert solution.alternatives[0].meets_objective
    with pytest.raises(InfeasibleError, match="requests/s are asked for, the best plan on these 2"):
        more = replace(CHAT, rate=solution.prediction.request_rate * 1.01)
        solve(QWEN, PAIR, more, objective=LEVELS, coefficients=COSTS)


def test_a_dense_model_has_pools_and_no_experts() -> None:
    spec = ModelSpec.from_config({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 8})
    solution = solve(spec, PAIR, CHAT, objective=LEVELS, coefficients=COSTS)
    assert solution.plan.layers == {}
    assert solution.prediction.request_rate == pytest.approx(CHAT.rate)


def test_reasons_are_sentences_without_causes_too_small_to_see() -> None:
    spec = shipped_spec("llama_3_1_8b")
    loop = Workload(prompt_tokens=500, output_tokens=100, concurrency=16)
    solution = solve(spec, cluster(group("l40s", 1, 2)), loop)
    reasons = " ".join(one.reason for one in solution.choices)
    assert "gives serves" not in reasons
    assert "e-" not in reasons


@pytest.mark.slow
def test_ten_thousand_devices_in_twenty_pools() -> None:
    from resource import RUSAGE_SELF, getrusage
    from time import process_time

    spec = shipped_spec("deepseek_v3")
    names = ("h20", "h200_sxm", "atlas_a2_376t", "h100_sxm", "h800")
    groups = [
        replace(group(names[i % 5], 63, 8, name=f"pool{i}"), nodes_per_failure_domain=4)
        for i in range(20)
    ]
    rng = np.random.default_rng(0)
    load_LE = rng.lognormal(0.0, 1.0, (len(spec.moe_layers), spec.num_experts))
    start = process_time()
    solution = solve(
        spec,
        cluster(*groups),
        replace(CHAT, rate=100.0),
        objective=Objective(ttft=3.0, tpot=0.05, percentile=0.9),
        coefficients=COSTS,
        constraints=Constraints(spread=True),
        load=load_LE,
    )
    assert process_time() - start < 60
    assert getrusage(RUSAGE_SELF).ru_maxrss < 4 * 1024**2
    assert solution.plan.num_ranks > 9500
    assert all(memory.fits for memory in solution.memories)
