"""Deterministic ranks: the same tokens and the same bits, however experts and requests lie."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from expert_plans import write_random_plan
from quick import quick_among
from rank_jobs import PROMPTS, Ranks, greedy, job

GREEDY = [greedy(prompt) for prompt in PROMPTS]
CASES = list(product(("deepseek_v3", "qwen3_moe"), ("float32", "bfloat16")))
EVERYWHERE = [(num_ranks, *case) for num_ranks in (1, 2, 4) for case in CASES]
# Every number of ranks, family and type.
QUICK = [(1, "qwen3_moe", "float32"), (2, "deepseek_v3", "bfloat16"), (4, "qwen3_moe", "bfloat16")]

Checkpoints = Callable[..., Path]
Launched = Callable[[int], Ranks]
Alone = Callable[[str, str], list[dict[str, Any]]]


@pytest.mark.parametrize(("num_ranks", "family", "dtype"), quick_among(EVERYWHERE[4:], QUICK))
def test_wherever_the_experts_are(
    num_ranks: int,
    family: str,
    dtype: str,
    ranks: Launched,
    checkpoint: Checkpoints,
    alone: Alone,
    tmp_path: Path,
) -> None:
    path, expected = checkpoint(family), alone(family, dtype)
    assert ranks(num_ranks).run(job(path, num_ranks, [GREEDY], dtype=dtype))["rounds"] == [expected]
    file, last = tmp_path / "plan.json", num_ranks - 1
    for seed, idle_rank in enumerate((None, None, last)):
        plan = write_random_plan(file, path, num_ranks, seed, dtype, idle_rank)
        answer = ranks(num_ranks).run(job(path, num_ranks, [GREEDY], dtype=dtype, plan=file))
        assert answer["rounds"] == [expected], plan.layers
        rows = [rank["expert_rows"] for rank in answer["ranks"]]
        assert len(set(rows)) == num_ranks
        assert (rows[last] == 0) == (idle_rank is not None)


@pytest.mark.parametrize(("num_ranks", "family", "dtype"), quick_among(EVERYWHERE, QUICK))
def test_whatever_else_is_in_the_batch(
    num_ranks: int, family: str, dtype: str, ranks: Launched, checkpoint: Checkpoints, alone: Alone
) -> None:
    path, expected = checkpoint(family), alone(family, dtype)

    def run(rounds: list[list[Any]], **sections: Any) -> Any:
        return ranks(num_ranks).run(job(path, num_ranks, rounds, dtype=dtype, **sections))

    answer = run([GREEDY[-1:], [*GREEDY, *GREEDY[::-1]]])
    assert answer["rounds"] == [expected[-1:], [*expected, *expected[::-1]]]
    # So many that every rank has each of the prompts.
    crowded = {"cache": {"page_size": 4, "num_pages": 24}, "scheduler": {"max_tokens_per_step": 13}}
    answer = run([GREEDY[:5] * num_ranks], **crowded)
    assert answer["rounds"] == [expected[:5] * num_ranks]
    assert sum(rank["preemptions"] for rank in answer["ranks"]) > 0
    answer = run([GREEDY[-1:], GREEDY[-1:]], cache={"prefix": True})
    assert answer["rounds"] == [expected[-1:], expected[-1:]]
    assert answer["ranks"][0]["cached_tokens"] > 128


def test_over_gloo(ranks: Launched, checkpoint: Checkpoints, alone: Alone, tmp_path: Path) -> None:
    path, expected = checkpoint("deepseek_v3"), alone("deepseek_v3", "bfloat16")
    write_random_plan(tmp_path / "plan.json", path, 2, 7, "bfloat16")
    for plan in ("auto", tmp_path / "plan.json"):
        asked = job(path, 2, [GREEDY], dtype="bfloat16", plan=plan, collective="gloo")
        assert ranks(2).run(asked)["rounds"] == [expected]


def test_a_seed_draws_the_same_alone_and_among_others(
    ranks: Launched, checkpoint: Checkpoints
) -> None:
    drawn = [
        {**request, "temperature": 1.0, "seed": 40 + number}
        for number, request in enumerate(GREEDY)
    ]
    path = checkpoint("deepseek_v3")
    others = [{**request, "seed": 90} for request in drawn]
    rounds = [*([each] for each in drawn), [*others, *drawn], others]
    answer = ranks(2).run(job(path, 2, rounds))["rounds"]
    alone, among, other = [single for (single,) in answer[:-2]], answer[-2], answer[-1]
    assert among == [*other, *alone]
    assert all(one["tokens"] != two["tokens"] for one, two in zip(alone, other, strict=True))
    for request, one in zip(drawn, alone, strict=True):
        assert one == alone_on_one_rank(ranks, path, request)


def alone_on_one_rank(ranks: Launched, path: Path, request: dict[str, Any]) -> Any:
    return ranks(1).run(job(path, 1, [[request]]))["rounds"][0][0]


@pytest.mark.parametrize(("family", "dtype"), CASES)
def test_the_answers_can_tell(family: str, dtype: str, alone: Alone) -> None:
    """Long enough, varied, and unlike one another: else the other tests could not fail."""
    answers = alone(family, dtype)
    assert all(len(set(answer["tokens"])) > 15 for answer in answers)
    assert len({tuple(answer["bits"]) for answer in answers}) == len(PROMPTS)
    other = "bfloat16" if dtype == "float32" else "float32"
    assert answers != alone(family, other)
