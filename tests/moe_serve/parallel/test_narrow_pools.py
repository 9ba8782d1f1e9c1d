"""Pools of unlike weights and a wire of int8 between them: how far they are from the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import VOCAB_SIZE
from pool_jobs import pool, pool_job
from rank_jobs import Job, Ranks, greedy, prompts_of

from moe_serve.accuracy.divergence import divergence

POOLS = [pool("one", 2), pool("two", 2, role="experts", weights="int8")]
# As in test_unlike_pools: the reference is asked once for both.
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))
# After so many of the reference's tokens.
PLACES = (0, 9, 18)
MAX_KL = 1e-3


@pytest.fixture(scope="module")
def mean_kl(
    ranks: Callable[[int], Ranks],
    checkpoint: Callable[..., Path],
    reference: Callable[..., tuple[list[list[int]], list[torch.Tensor]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., float]:
    """mean_kl(wire, **fault): of the distributions of single tokens; nats per token."""
    file, path = tmp_path_factory.mktemp("narrow") / "plan.json", checkpoint("deepseek_v3")
    expected, logits = reference(path, PROMPTS, 64)
    given = [
        [*prompt, *right[:place]]
        for prompt, right in zip(PROMPTS, expected, strict=True)
        for place in PLACES
    ]
    wanted = [logits_SV[[place]] for logits_SV in logits for place in PLACES]

    def measure(wire: str, **fault: Any) -> float:
        asked = [greedy(prompt, 1) | {"logprobs": VOCAB_SIZE} for prompt in given]
        asked_job = pool_job(path, POOLS, file, asked, wire, **fault)
        (answers,) = ranks(4).run(asked_job)["rounds"]
        return divergence(wanted, [distribution(answer) for answer in answers]).mean

    return measure


def distribution(answer: Job) -> torch.Tensor:
    """-> log-probabilities_1V of the one token of an answer."""
    found = [pair.split(":") for pair in answer["bits"][0].split()[1:]]
    assert len(found) == VOCAB_SIZE
    logprobs_1V = torch.full((1, VOCAB_SIZE), torch.nan)
    for token, value in found:
        logprobs_1V[0, int(token)] = float.fromhex(value)
    return logprobs_1V


def test_int8_experts_beyond_an_int8_wire_are_near_the_reference(
    mean_kl: Callable[..., float],
) -> None:
    """Each of both can be told from what loses nothing."""
    assert 1e-6 < mean_kl("auto") < mean_kl("int8") < MAX_KL


def test_a_wire_that_loses_more_is_seen(mean_kl: Callable[..., float]) -> None:
    assert mean_kl("int8", fault={"kind": "coarse_wire", "rank": 0}) > MAX_KL
