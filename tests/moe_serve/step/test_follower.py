"""The engine of a rank that never has requests of its own, apart from the ranks it follows."""

from typing import Any, cast

import pytest
import torch
from moe_devices.pacer import RealTime

from moe_serve.errors import RequestError
from moe_serve.step.follower import Follower
from moe_serve.step.handover import HandoverPart
from moe_serve.step.runner import Runner
from moe_serve.step.share import share_batch
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.types import Batch, Chunk, Request, SamplingParams

BATCH = Batch((Chunk("a", 16, (5, 6), (3, 1), True), Chunk("ü", 0, (7,), (2,), False)))


class Group:
    """An attention group in which this rank is `rank`, and its leader says `leader`."""

    def __init__(self, rank: int, size: int, leader: bytes = b"") -> None:
        self.rank = rank
        self.size = size
        self.leader = leader
        self.told: list[bytes] = []

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        self.told.append(data)
        return [self.leader or data] + [b""] * (self.size - 1)


class EmptyRunner:
    """Notes the batches it is given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def run(self, batch: Batch, handover: HandoverPart) -> torch.Tensor:
        self.batches.append(batch)
        return torch.empty(0, 4)


class Counting:
    num_rows, bytes_sent = 3, 5

    @property
    def bytes_by_link(self) -> dict[str, int]:
        return {}


def test_members_take_the_leaders_batch_and_all_letters() -> None:
    leader = Group(0, 2)
    assert share_batch(cast(Any, leader), BATCH, b"do") == (BATCH, [b"do", b""])
    member = Group(1, 2, leader.told[0])
    assert share_batch(cast(Any, member), Batch(), b"done") == (BATCH, [b"do", b""])
    assert member.told == [b"done"]


def test_a_rank_alone_shares_with_nobody() -> None:
    alone = Group(0, 1)
    assert share_batch(cast(Any, alone), BATCH) == (BATCH, [b""])
    assert alone.told == []


def test_a_follower_steps_without_work_and_takes_no_requests() -> None:
    runner = EmptyRunner()
    follower = Follower(
        7, cast(Runner, runner), cast(TimedDispatcher, Counting()), Timer(RealTime())
    )
    assert not follower.has_work
    assert [follower.step(), follower.step(0.004)] == [[], []]
    assert runner.batches == [Batch(), Batch()]
    request = Request(request_id="a", prompt_ids=(1,), sampling=SamplingParams())
    with pytest.raises(RequestError, match="rank 7 follows other ranks"):
        follower.add(request)
    assert follower.abort("a") is None
    stats = follower.stats()
    assert (stats.plan_rank, stats.num_steps, stats.num_expert_rows) == (7, 2, 3)
