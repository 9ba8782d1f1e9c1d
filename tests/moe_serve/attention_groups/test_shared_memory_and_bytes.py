"""What members of an attention group, and ranks with experts alone, read and hold."""

from pathlib import Path
from typing import Any

import pytest
from attention_cases import CHECKPOINTS

from moe_serve.weights.checkpoint import Checkpoint

# tests/moe_serve/parallel/test_unlike_pools.py has the quick cases.
pytestmark = pytest.mark.slow

Answers = dict[str, Any]


def stored_bytes(path: Path, *parts: str) -> int:
    """Of the tensors that have one of these words in their names."""
    stored = Checkpoint.open(path)
    names = [name for name in stored if any(part in name for part in parts)]
    return sum(stored.stored(name).num_bytes for name in names)


def read(answers: Answers, case: str) -> list[int]:
    return [rank["bytes_read"] for rank in answers[case]["ranks"]]


def test_members_read_their_shares_and_no_more(answers: Answers, paths: dict[str, Path]) -> None:
    """Norms, gates, what makes the latent and what all heads share are read by all members."""
    copied = ("norm", ".gate.", "q_a_proj", "kv_a_proj")
    for name in ("latent", "grouped"):
        everything = stored_bytes(paths[name], "")
        twice = stored_bytes(paths[name], *copied)
        assert sum(read(answers, f"{name} two")) == everything + twice
        assert read(answers, f"{name} alone") == [everything]


def test_a_rank_with_experts_alone_reads_nothing_else(
    answers: Answers, paths: dict[str, Path]
) -> None:
    latent = read(answers, "latent with experts ranks")
    grouped = read(answers, "grouped_one_kv_head with experts ranks")
    each = stored_bytes(paths["latent"], ".experts.") // 16
    assert latent[2:] == [each * 5, each * 7]
    assert grouped[2:] == [stored_bytes(paths["grouped_one_kv_head"], ".experts.") // 8 * 5]
    for case in ("latent with experts ranks", "grouped_one_kv_head with experts ranks"):
        assert answers[case]["ranks"][-1]["cache"] == 0


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_cache_is_split_by_key_value_heads(name: str, answers: Answers) -> None:
    (alone,) = answers[f"{name} alone"]["ranks"]
    is_copied = name.startswith("latent") or name == "grouped_one_kv_head"
    for member in answers[f"{name} two"]["ranks"]:
        assert member["cache"] == (alone["cache"] if is_copied else alone["cache"] // 2)


def test_four_members_copy_two_heads(answers: Answers) -> None:
    (alone,) = answers["grouped_biased alone"]["ranks"]
    for member in answers["grouped_biased four"]["ranks"]:
        assert member["cache"] == alone["cache"] // 2
