"""Prefill apart where either end, or both, share attention: every rank hands over its heads."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sharing_cases import (
    CROWDED,
    DROPPED,
    FEW,
    LATER,
    MANY,
    NUM_KNOWN,
    NUM_RANKS,
    NUM_TOKENS,
    PROMPTS,
    RIGHT,
    WRONG,
    bytes_of_a_token,
    config,
)

# tests/moe_serve/parallel/test_all_together.py has the quick case.
pytestmark = pytest.mark.slow

RANK = Path(__file__).parent / "sharing_rank.py"
TESTS = Path(__file__).parents[2]
ALL = RIGHT | CROWDED | DROPPED | WRONG


@pytest.fixture(scope="module")
def answers(
    mpirun: Callable[..., "subprocess.CompletedProcess[str]"],
    checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What sharing_rank.py answers, by the case's name: all in one launch."""
    folder = tmp_path_factory.mktemp("sharing")
    cases = []
    for name, (family, prefill, decode, fault) in ALL.items():
        sections = {"cache": FEW} if name in CROWDED else {}
        file = folder / f"{len(cases)}.yaml"
        file.write_text(yaml.safe_dump(config(checkpoint(family), prefill, decode, **sections)))
        cases.append({"config": str(file), "rounds": rounds_of(name), **fault})
    (folder / "cases.json").write_text(json.dumps(cases))
    modules = ("-x", f"PYTHONPATH={TESTS.parent}:{TESTS}")
    done = mpirun(NUM_RANKS, ["-W", "error", str(RANK), str(folder / "cases.json")], 200, modules)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(ALL, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(scope="module")
def expected(checkpoint: Callable[..., Path], reference: Any) -> Callable[[str], list[Any]]:
    """The reference's tokens of a case, by round and prompt."""

    def tokens(name: str) -> list[Any]:
        path = checkpoint(ALL[name][0])
        given = [reference(path, prompts, NUM_TOKENS)[0] for prompts in rounds_of(name)]
        return [[list(each) for each in answered] for answered in given]

    return tokens


def rounds_of(name: str) -> list[list[list[int]]]:
    if name in CROWDED:
        return [MANY]
    return [PROMPTS, LATER] if name in RIGHT else [PROMPTS]


@pytest.mark.parametrize("name", RIGHT | CROWDED)
def test_the_same_tokens_as_the_reference(name: str, answers: Any, expected: Any) -> None:
    assert answers[name]["tokens"] == expected(name)
    ranks = answers[name]["ranks"][-1]
    # Where pages are few, one that waits for its heads may have to give its own up.
    fewest = sum(map(len, rounds_of(name))) if name in RIGHT else 1
    assert ranks[0]["num_handovers"] >= fewest
    assert not any(each["num_handover_failures"] or each["num_pages_used"] for each in ranks)


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_rank_needs_crosses_once_and_not_what_it_has_cached(name: str, answers: Any) -> None:
    family, _, decode, _ = RIGHT[name]
    first, both = (sum(each["kv_bytes_sent"] for each in ranks) for ranks in answers[name]["ranks"])
    token_bytes = bytes_of_a_token(family, decode)
    assert first == sum(len(prompt) - 1 for prompt in PROMPTS) * token_bytes
    assert both - first == (len(LATER[0]) - 1 - NUM_KNOWN) * token_bytes


@pytest.mark.parametrize(
    ("name", "num_senders"),
    # One copy of a latent is as good as another; of several receivers each has a sender.
    [("qwen3_moe 2 to 1", 2), ("deepseek_v3 2 to 1", 1), ("deepseek_v3 2 to 2", 2)],
)
def test_senders_share_the_bytes(name: str, num_senders: int, answers: Any) -> None:
    sent = [each["kv_bytes_sent"] for each in answers[name]["ranks"][-1]]
    assert sorted(sent)[-num_senders:] == [sum(sent) // num_senders] * num_senders


@pytest.mark.parametrize("name", DROPPED)
def test_a_part_that_is_missing_costs_time_alone(name: str, answers: Any, expected: Any) -> None:
    assert answers[name]["tokens"] == expected(name)
    ranks = answers[name]["ranks"][-1]
    assert ranks[0]["num_handovers"] == 0
    assert ranks[0]["num_handover_failures"] == len(PROMPTS)
    assert not any(each["num_pages_used"] for each in ranks)


@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_is_wrong_changes_the_tokens(name: str, answers: Any, expected: Any) -> None:
    (got,), (right,) = answers[name]["tokens"], expected(name)
    assert answers[name]["ranks"][0][0]["num_handovers"] == len(PROMPTS)
    assert all(one != other for one, other in zip(got, right, strict=True))
