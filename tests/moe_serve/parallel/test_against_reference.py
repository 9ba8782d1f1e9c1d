"""Ranks with their fastest kernels against transformers, in float32."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from expert_plans import write_random_plan
from quick import QUICK_FAMILIES, quick_among
from rank_jobs import NEAR, Ranks, follow, greedy, job, prompts_of

NEW_TOKENS = 64
# Those of the engine's own tests: the reference is asked once for both.
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))


@pytest.mark.parametrize(
    ("num_ranks", "family"),
    quick_among(
        product((1, 2, 4), QUICK_FAMILIES),
        [(2, "qwen3_moe")],
    ),
)
def test_the_tokens_are_the_references(
    num_ranks: int,
    family: str,
    ranks: Callable[[int], Ranks],
    checkpoint: Callable[..., Path],
    reference: Callable[..., tuple[list[list[int]], list[torch.Tensor]]],
    tmp_path: Path,
) -> None:
    path, file = checkpoint(family), tmp_path / "plan.json"
    expected, logits = reference(path, PROMPTS, NEW_TOKENS)
    write_random_plan(file, path, num_ranks, 11)
    asked = [greedy(prompt, NEW_TOKENS) for prompt in PROMPTS]
    for plan in ("auto", file):
        asked_job = job(path, num_ranks, [asked], plan=plan, deterministic=False)
        (answers,) = ranks(num_ranks).run(asked_job)["rounds"]
        followed = sum(map(follow, answers, expected, logits))
        assert followed > 0.9 * NEW_TOKENS * len(PROMPTS)


def test_a_wrong_token_is_seen() -> None:
    logits_SV = torch.tensor([[3.0, 1.0, 0.0], [2.0, 2.0 - NEAR / 2, 0.0], [0.0, 5.0, 1.0]])
    best = logits_SV.log_softmax(-1).max(-1).values.tolist()
    bits = [value.hex() for value in best]
    assert follow({"tokens": [0, 0, 1], "bits": bits}, [0, 0, 1], logits_SV) == 3
    assert follow({"tokens": [0, 1, 2], "bits": bits}, [0, 0, 1], logits_SV) == 1
    for tokens in ([1, 0, 1], [0, 2, 1], [0, 0, 2]):
        with pytest.raises(AssertionError, match="step"):
            follow({"tokens": tokens, "bits": bits}, [0, 0, 1], logits_SV)
    with pytest.raises(AssertionError, match="step 2"):
        follow({"tokens": [0, 0, 1], "bits": [*bits[:2], (-0.5).hex()]}, [0, 0, 1], logits_SV)
