"""Pools that a link parts, pools of experts alone, and shared attention: the same tokens."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from expert_plans import write_random_plan
from moe_placement.plan import PoolPlan
from quick import QUICK_FAMILIES, quick_among
from rank_jobs import Ranks, follow, greedy, job, prompts_of

NEW_TOKENS = 24
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]


def pool(name: str, ranks: int, role: str = "both", shards: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "device": "cpu",
        "ranks": ranks,
        "role": role,
        "threads": 1,
        "attention": {"tensor_parallel": shards},
    }


TOPOLOGIES = {
    "bridge": [pool("one", 2), pool("two", 2)],
    "three pools": [pool("one", 1), pool("two", 2), pool("three", 1)],
    "experts apart": [pool("one", 2), pool("two", 2, role="experts")],
    "shared attention": [pool("one", 4, shards=2)],
    "all together": [pool("one", 2, shards=2), pool("two", 1), pool("three", 1, role="experts")],
}


def links(pools: list[dict[str, Any]], wire: str = "auto") -> list[dict[str, Any]]:
    names = [each["name"] for each in pools]
    return [
        {"between": [one, other], "bandwidth": "1GB/s", "wire": wire}
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    ]


def plan_pools(pools: list[dict[str, Any]]) -> tuple[PoolPlan, ...]:
    plans, first = [], 0
    for each in pools:
        ranks = tuple(range(first, first + each["ranks"]))
        shards = each["attention"]["tensor_parallel"]
        plans.append(
            PoolPlan(each["name"], "cpu", ranks, each["role"], "float32", tensor_parallel=shards)
        )
        first += each["ranks"]
    return tuple(plans)


@pytest.fixture
def run(
    ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path], tmp_path: Path
) -> Callable[..., Mapping[str, Any]]:
    """run(topology, family): on four ranks, under a random plan."""

    def answer(topology: str, family: str, wire: str = "auto", **more: Any) -> Mapping[str, Any]:
        pools = TOPOLOGIES[topology]
        path, file = checkpoint(family), tmp_path / "plan.json"
        write_random_plan(file, path, 4, 5, pools=plan_pools(pools))
        asked = [greedy(prompt, NEW_TOKENS) for prompt in PROMPTS]
        wanted = job(path, 4, [asked], plan=file, deterministic=False, **more)
        wanted["config"] |= {"pools": pools, "links": links(pools, wire)}
        # Prompts are computed in chunks, beside those that decode.
        wanted["config"]["scheduler"] = {"max_tokens_per_step": 48}
        return ranks(4).run(wanted)

    return answer


@pytest.mark.parametrize(
    ("topology", "family"),
    quick_among(
        product(TOPOLOGIES, QUICK_FAMILIES),
        [*((name, "deepseek_v3") for name in TOPOLOGIES), ("all together", "qwen3_moe")],
    ),
)
def test_the_tokens_are_the_references(
    topology: str,
    family: str,
    run: Callable[..., Mapping[str, Any]],
    checkpoint: Callable[..., Path],
    reference: Reference,
) -> None:
    expected, logits = reference(checkpoint(family), PROMPTS, 64)
    (answers,) = run(topology, family)["rounds"]
    followed = [
        follow(answer, right[:NEW_TOKENS], logits_SV[:NEW_TOKENS])
        for answer, right, logits_SV in zip(answers, expected, logits, strict=True)
    ]
    assert sum(followed) > 0.9 * NEW_TOKENS * len(PROMPTS)


@pytest.mark.parametrize(
    ("topology", "fault"),
    [
        ("bridge", {"kind": "lost_sum", "rank": 2}),
        ("experts apart", {"kind": "lost_sum", "rank": 3}),
        ("experts apart", {"kind": "lost_row", "rank": 2, "layer": 1}),
        ("shared attention", {"kind": "lost_row", "rank": 1, "layer": 1}),
        ("all together", {"kind": "lost_sum", "rank": 3}),
    ],
)
def test_a_fault_changes_the_tokens(
    topology: str, fault: dict[str, Any], run: Callable[..., Mapping[str, Any]]
) -> None:
    right = run(topology, "deepseek_v3")["rounds"]
    wrong = run(topology, "deepseek_v3", fault=fault)["rounds"]
    assert [each["tokens"] for each in right[0]] != [each["tokens"] for each in wrong[0]]


def test_an_experts_rank_reads_no_more_than_its_experts(
    run: Callable[..., Mapping[str, Any]],
) -> None:
    first, second, *others = run("experts apart", "deepseek_v3")["ranks"]
    for rank in others:
        assert rank["bytes_read"].get("others", 0) == 0 < rank["bytes_read"]["experts"]
    assert first["bytes_read"]["others"] == second["bytes_read"]["others"] > 0
