"""Ranks that share one copy of the attention weights give the tokens of one rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_cases import CASES, CHECKPOINTS, FAULTS, NUM_TOKENS, PROMPTS

# tests/moe_serve/parallel/test_unlike_pools.py has the quick cases, and a quick fault.
pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
EXACT = [
    case
    for case, (_, num_ranks, _, more) in CASES.items()
    if num_ranks > 1 and not {"fault", "deterministic"} & more.keys()
]

Answers = dict[str, Any]


def tokens_of(answer: Any) -> list[list[int]]:
    return [each["tokens"] for each in answer["answers"]]


def logprobs_of(answer: Any) -> torch.Tensor:
    """Of each prompt's chosen tokens."""
    return torch.tensor([[step[0][1] for step in each["logprobs"]] for each in answer["answers"]])


@pytest.mark.parametrize("case", EXACT)
def test_the_tokens_are_those_of_one_rank(case: str, answers: Answers) -> None:
    shared, alone = answers[case], answers[f"{CASES[case][0]} alone"]
    assert tokens_of(shared) == tokens_of(alone)
    assert (logprobs_of(shared) - logprobs_of(alone)).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["latent", "grouped_one_kv_head"])
def test_the_tokens_are_the_references(
    name: str, answers: Answers, paths: dict[str, Path], reference: Callable[..., Any]
) -> None:
    expected, _ = reference(paths[name], PROMPTS, NUM_TOKENS)
    assert tokens_of(answers[f"{name} two"]) == expected


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_answers_can_tell(name: str, answers: Answers) -> None:
    tokens = tokens_of(answers[f"{name} alone"])
    assert all(len(each) == NUM_TOKENS and len(set(each)) > 10 for each in tokens)


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_fault_of_one_member_changes_the_tokens(name: str, fault: str, answers: Answers) -> None:
    wrong = tokens_of(answers[f"{name} {fault}"])
    expected = tokens_of(answers[f"{name} alone"])
    assert any(one != right for one, right in zip(wrong, expected, strict=True))


def test_deterministic_members_give_the_same_bits_whatever_the_batch(answers: Answers) -> None:
    chunked, at_once = answers["latent bits"], answers["latent bits at once"]
    assert chunked["answers"] == at_once["answers"]
    assert chunked["ranks"][0]["num_steps"] > at_once["ranks"][0]["num_steps"]


def test_every_rank_takes_part_in_every_step(answers: Answers) -> None:
    for answer in answers.values():
        assert len({rank["num_steps"] for rank in answer["ranks"]}) == 1
    rows = [rank["num_rows"] for rank in answers["latent with experts ranks"]["ranks"]]
    alone = answers["latent alone"]["ranks"][0]["num_rows"]
    assert sum(rows) == alone and min(rows) > 0
