"""The serving loop of one rank: what it tells the front end and the other ranks."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from moe_comm.local import LocalDispatcher
from moe_comm.transport.exchange import Exchange
from moe_placement.plan import Plan, PoolPlan

from moe_serve.errors import OverloadedError, RequestError
from moe_serve.messages import Command, RankStats, Report
from moe_serve.step.changes import no_changes
from moe_serve.step.engine import Engine
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.move_budget import MoveLimits
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker
from moe_serve.types import Request, SamplingParams

EPOCH = 5


class RefusingEngine:
    has_work = False
    descriptors = ()

    def __init__(self, refusal: RequestError) -> None:
        self._refusal = refusal

    def add(self, request: Request) -> None:
        raise self._refusal

    def poll(self) -> bool:
        return False

    def stats(self) -> RankStats:
        return RankStats(plan_rank=0)


class Line:
    """Brings one request and the word to stop; keeps the reports."""

    def __init__(self) -> None:
        request = Request(request_id="a", prompt_ids=(1,), sampling=SamplingParams())
        self._commands = [Command(wake=1, submit=(request,)), Command(wake=2, stop=True)]
        self.reports: list[Report] = []

    def receive(self) -> Sequence[Command]:
        commands, self._commands = self._commands, []
        return commands

    def wait(self, seconds: float, descriptors: Sequence[int]) -> None:
        raise AssertionError("there is nothing to wait for")

    def send(self, report: Report) -> bool:
        self.reports.append(report)
        return True


class Agreeing:
    """The exchange with another rank that agrees to all; remembers the step headers."""

    size = 2

    def __init__(self) -> None:
        self.headers: list[list[int]] = []

    def max_reduce(self, words: Any) -> Any:
        self.headers.append(np.asarray(words).tolist())
        return words


def mover() -> ExpertMover:
    """Of a model without experts."""
    plan = Plan("dense", 0, (PoolPlan("host", "cpu", (0,)),), {}, EPOCH)
    limits = MoveLimits(bytes_per_step=1, expert_bytes=1, room=1)
    return ExpertMover(0, plan, {}, None, LocalDispatcher({}), lambda plan: {}, limits)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(RequestError("never"), "request"), (OverloadedError("not now"), "overloaded")],
)
def test_a_refused_request_is_told_with_its_kind(refusal: RequestError, kind: str) -> None:
    line, exchange = Line(), Agreeing()
    engine = cast(Engine, RefusingEngine(refusal))
    load = ExpertCounter((), 0)
    tenants = Tenants.of_one(0, engine)
    changes = no_changes(0, tenants)
    alone = cast(Exchange, exchange)
    Worker(0, tenants, changes, alone, line, lambda: None, load, mover()).run()
    (event,) = [event for report in line.reports for event in report.events]
    assert (event.request_id, event.finish_reason, event.token_id) == ("a", "error", None)
    assert (event.error, event.error_kind) == (str(refusal), kind)
    assert [header[3] for header in exchange.headers] == [EPOCH]
