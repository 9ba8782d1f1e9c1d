"""What a rank reads and holds falls with the number of ranks."""

from collections.abc import Callable
from pathlib import Path

import pytest
from expert_plans import write_random_plan
from rank_jobs import PROMPTS, Ranks, greedy, job

from moe_serve.weights.checkpoint import Checkpoint

FAMILIES = ("deepseek_v3", "qwen3_moe")


def stored_bytes(path: Path, experts: bool) -> int:
    stored = Checkpoint.open(path)
    return sum(stored.stored(name).num_bytes for name in stored if (".experts." in name) == experts)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_each_rank_reads_and_holds_its_own_experts(
    deterministic: bool, family: str, ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path]
) -> None:
    path = checkpoint(family)
    read, held = {}, {}
    for num_ranks in (1, 2, 4):
        rounds = [[greedy(PROMPTS[0], 1)]]
        answer = ranks(num_ranks).run(job(path, num_ranks, rounds, deterministic=deterministic))
        reports = answer["ranks"]
        read[num_ranks] = max(report["bytes_read"]["experts"] for report in reports)
        held[num_ranks] = max(report["expert_memory"] for report in reports)
        together = sum(report["bytes_read"]["experts"] for report in reports)
        assert together == stored_bytes(path, experts=True)
        others = {report["bytes_read"]["others"] for report in reports}
        assert others == {stored_bytes(path, experts=False)}
    for few, many in ((1, 2), (2, 4)):
        assert read[many] < 0.6 * read[few]
        assert held[many] < 0.6 * held[few]


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_follow_the_slots_of_the_plan(
    family: str, ranks: Callable[[int], Ranks], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = checkpoint(family)
    plan = write_random_plan(tmp_path / "plan.json", path, 4, 5)
    asked = job(path, 4, [[greedy(PROMPTS[0], 1)]], plan=tmp_path / "plan.json")
    reports = ranks(4).run(asked)["ranks"]
    slots = [plan.num_slots(rank) for rank in range(4)]
    num_experts = plan.num_experts * len(plan.layers)
    each = stored_bytes(path, experts=True) // num_experts
    assert [report["bytes_read"]["experts"] for report in reports] == [each * n for n in slots]
    assert len({report["expert_memory"] / n for report, n in zip(reports, slots, strict=True)}) == 1
    assert sum(slots) > num_experts
