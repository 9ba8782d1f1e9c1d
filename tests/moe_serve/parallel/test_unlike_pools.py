"""Pools that a link parts, pools of experts alone, and shared attention: the same tokens."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from pool_jobs import pool, pool_job
from quick import QUICK_FAMILIES, quick_among
from rank_jobs import Ranks, follow, greedy, prompts_of

NEW_TOKENS = 24
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]

TOPOLOGIES = {
    "bridge": [pool("one", 2), pool("two", 2)],
    "three pools": [pool("one", 1), pool("two", 2), pool("three", 1)],
    "experts apart": [pool("one", 2), pool("two", 2, role="experts")],
    "shared attention": [pool("one", 4, shards=2)],
    "all but phases": [pool("one", 2, shards=2), pool("two", 1), pool("three", 1, role="experts")],
}
FAULTS = [
    ("bridge", {"kind": "lost_sum", "rank": 2}),
    ("experts apart", {"kind": "lost_sum", "rank": 3}),
    ("experts apart", {"kind": "lost_row", "rank": 2, "layer": 1}),
    ("shared attention", {"kind": "drop_attention", "rank": 1}),
    ("all but phases", {"kind": "lost_sum", "rank": 3}),
]


@pytest.fixture(scope="module")
def run(
    ranks: Callable[[int], Ranks],
    checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Mapping[str, Any]]:
    """run(topology, family): on four ranks; without a fault they compute once."""
    file = tmp_path_factory.mktemp("unlike") / "plan.json"
    right: dict[tuple[str, str], Mapping[str, Any]] = {}

    def compute(topology: str, family: str, **fault: Any) -> Mapping[str, Any]:
        asked = [greedy(prompt, NEW_TOKENS) for prompt in PROMPTS]
        pools = TOPOLOGIES[topology]
        answer: Mapping[str, Any] = ranks(4).run(
            pool_job(checkpoint(family), pools, file, asked, **fault)
        )
        return answer

    def answer(topology: str, family: str, **fault: Any) -> Mapping[str, Any]:
        if fault:
            return compute(topology, family, **fault)
        if (topology, family) not in right:
            right[topology, family] = compute(topology, family)
        return right[topology, family]

    return answer


@pytest.mark.parametrize(
    ("topology", "family"),
    quick_among(
        product(TOPOLOGIES, QUICK_FAMILIES), [(name, "deepseek_v3") for name in TOPOLOGIES]
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


@pytest.mark.parametrize(("topology", "fault"), FAULTS)
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
