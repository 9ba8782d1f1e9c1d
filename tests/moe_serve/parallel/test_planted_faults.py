"""A fault in the dispatch must change the tokens, or the exactness tests could not fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expert_plans import write_random_plan
from quick import quick_among
from rank_jobs import PROMPTS, Ranks, greedy, job

GREEDY = [greedy(prompt) for prompt in PROMPTS]


@pytest.fixture
def run_faulty(
    ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path], tmp_path: Path
) -> Callable[..., Any]:
    """run_faulty(num_ranks, family, **fault): in the first layer with experts, under a plan that
    gives every rank some of them, and some of them replicas."""

    def run(num_ranks: int, family: str, **fault: Any) -> Any:
        path, file = checkpoint(family), tmp_path / "plan.json"
        plan = write_random_plan(file, path, num_ranks, seed=1)
        layer = min(plan.layers)
        assert len(plan.layers[layer].slots[0]) > 1
        planted = {"fault": {"layer": layer, **fault}} if fault else {}
        return ranks(num_ranks).run(job(path, num_ranks, [GREEDY], plan=file, **planted))

    return run


@pytest.mark.parametrize("family", quick_among(["deepseek_v3", "qwen3_moe"], ["deepseek_v3"]))
@pytest.mark.parametrize("kind", ["lost_row", "missing_term", "wrong_table"])
def test_a_fault_on_one_rank_changes_the_tokens(
    kind: str,
    family: str,
    run_faulty: Callable[..., Any],
    alone: Callable[[str, str], list[dict[str, Any]]],
) -> None:
    expected = alone(family, "float32")
    for num_ranks in (2, 4):
        (answers,) = run_faulty(num_ranks, family, kind=kind, rank=0)["rounds"]
        wrong = [
            number
            for number, (one, right) in enumerate(zip(answers, expected, strict=True))
            if one["tokens"] != right["tokens"]
        ]
        assert wrong, f"{kind} on {num_ranks} ranks"


@pytest.mark.parametrize("kind", ["lost_row", "missing_term"])
def test_what_is_lost_once_is_in_the_bits(
    kind: str,
    run_faulty: Callable[..., Any],
    alone: Callable[[str, str], list[dict[str, Any]]],
) -> None:
    (answers,) = run_faulty(2, "deepseek_v3", kind=kind, rank=0, times=1)["rounds"]
    assert answers != alone("deepseek_v3", "float32")


def test_which_replica_answers_is_no_matter(
    run_faulty: Callable[..., Any], alone: Callable[[str, str], list[dict[str, Any]]]
) -> None:
    planned, even = run_faulty(4, "qwen3_moe"), run_faulty(4, "qwen3_moe", kind="even_weights")
    assert planned["rounds"] == even["rounds"] == [alone("qwen3_moe", "float32")]
    rows = [[rank["expert_rows"] for rank in answer["ranks"]] for answer in (planned, even)]
    assert rows[0] != rows[1] and sum(rows[0]) == sum(rows[1])


def test_draws_keyed_by_the_row_differ_among_others(
    ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path]
) -> None:
    drawn = [
        {**request, "temperature": 1.0, "seed": 40 + number}
        for number, request in enumerate(GREEDY)
    ]
    rounds = [*([each] for each in drawn), drawn]
    asked = job(checkpoint("deepseek_v3"), 2, rounds, fault={"kind": "draws_by_row"})
    *alone, among = ranks(2).run(asked)["rounds"]
    wrong = [one["tokens"] != two["tokens"] for (one,), two in zip(alone, among, strict=True)]
    assert sum(wrong) > len(wrong) // 2
