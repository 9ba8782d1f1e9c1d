"""The engine as the front end sees it: ranks behind sockets, and requests that they are sent."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress

from moe_serve.control.balancing.expert_load import ExpertLoadRecord
from moe_serve.control.balancing.imbalance import ImbalanceWindow
from moe_serve.control.requests.live_requests import LiveRequests
from moe_serve.control.requests.rank_lines import RankLines
from moe_serve.control.requests.router import Router
from moe_serve.errors import BringUpError, EngineDeadError
from moe_serve.messages import (
    Command,
    MembershipNews,
    PlanChange,
    RankStats,
    Report,
    TenantChange,
    TenantNews,
)
from moe_serve.types import Request, TokenEvent

_LAST_REPORT_SECONDS = 2.0
# A rank may be lost as it starts, and the others may load its experts first.
_FIRST_ANSWER_SECONDS = 300.0


class _Change:
    """A change of who is served, until all ranks have done their part."""

    def __init__(self, number: int, waiting: set[int]) -> None:
        self._number = number
        self._waiting = waiting
        self.news: list[TenantNews] = []
        self.is_done = asyncio.Event()

    def take(self, rank: int, news: TenantNews) -> None:
        if news.number == self._number and rank in self._waiting:
            self._waiting.discard(rank)
            self.news.append(news)
        if not self._waiting:
            self.is_done.set()


class RemoteEngine:
    """An EngineClient over ZeroMQ; lives in one asyncio loop.

    Args:
        addresses: of the ranks' links, by plan rank.
        routers: by number of the tenant.
        record: gets the expert load that ranks count.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        secret: bytes,
        routers: Mapping[int, Router],
        record: ExpertLoadRecord | None = None,
    ) -> None:
        self._lines = RankLines(addresses, secret, self._take)
        self._requests = LiveRequests(self._lines, routers)
        self._stats = [RankStats(plan_rank=rank) for rank in range(len(addresses))]
        self._imbalance = ImbalanceWindow(len(addresses))
        self._record = record
        self._heard = [asyncio.Event() for _ in addresses]
        self._ended = [asyncio.Event() for _ in addresses]
        self._change: _Change | None = None
        self.membership = MembershipNews(0, ())

    @property
    def is_ready(self) -> bool:
        return not self._requests.refusal

    @property
    def num_live(self) -> int:
        return len(self._requests)

    @property
    def expert_imbalance(self) -> float:
        return self._imbalance.value

    @property
    def rank_loads(self) -> Sequence[float]:
        return self._imbalance.over_mean

    def stats(self) -> Sequence[RankStats]:
        return tuple(self._stats)

    def change_plan(self, change: PlanChange) -> None:
        """Tell all ranks; each reports when it runs the changed plan, or that it was given up."""
        self._lines.send_each(Command(wake=0, plan_change=change))

    async def change_tenants(self, change: TenantChange) -> list[TenantNews]:
        """Tell all ranks who is to be served; one change at a time -> what each made of it.

        Raises:
            EngineDeadError: the ranks are gone.
        """
        assert self._change is None, "one change at a time"
        if self._requests.refusal:
            raise EngineDeadError(self._requests.refusal)
        there = [rank for rank in range(len(self._stats)) if rank not in self.membership.lost]
        self._change = _Change(change.number, set(there))
        self._lines.send_each(Command(wake=0, tenant_change=change))
        try:
            await self._change.is_done.wait()
            if self._requests.refusal:
                raise EngineDeadError(self._requests.refusal)
            return self._change.news
        finally:
            self._change = None

    def open_tenant(self, number: int, router: Router) -> None:
        """From now on it may be asked."""
        router.exclude(self.membership.lost)
        self._requests.open_tenant(number, router)

    def end_tenant(self, number: int) -> None:
        """From now on it takes no more requests, and those that are live end."""
        self._requests.end_tenant(number)

    def close_tenant(self, number: int) -> None:
        """No rank has it any more."""
        self._requests.close_tenant(number)

    def live_requests(self, tenant: int) -> list[str]:
        """Ids of a tenant's live requests."""
        return self._requests.of_tenant(tenant)

    async def start(self) -> None:
        """Greet every rank and wait until each has answered, or is known to be lost.

        Raises:
            BringUpError: one does neither; or those that are left cannot serve.
        """
        self._lines.listen()
        self._lines.send_all({})
        answers = asyncio.gather(*(heard.wait() for heard in self._heard))
        try:
            await asyncio.wait_for(answers, _FIRST_ANSWER_SECONDS)
        except TimeoutError:
            silent = next(rank for rank, heard in enumerate(self._heard) if not heard.is_set())
            why = self._lines.unreached.get(silent, "see its log")
            raise BringUpError(f"rank {silent} does not answer the front end: {why}") from None
        if self.membership.refusal:
            raise BringUpError(self.membership.refusal)
        self._requests.refusal = ""

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        return self._requests.generate(requests)

    async def guard(self) -> None:
        """Wait as long as every rank is listened to.

        Raises:
            EngineDeadError: a rank's line has ended.
        """
        await self._lines.guard()

    def abort(self, request_id: str) -> None:
        self._requests.abort(request_id)

    def drain(self) -> None:
        """Refuse new requests; those that are live go on."""
        self._requests.refusal = "the server is draining; try another one"
        self._give_up_change()

    def fail(self, reason: str) -> None:
        """The ranks are gone: end every live request with an error."""
        self._requests.fail_all(reason)
        self._give_up_change()

    def _give_up_change(self) -> None:
        if self._change is not None:
            self._change.is_done.set()

    async def stop_ranks(self) -> None:
        """Tell every rank to leave its serving loop."""
        self._lines.send_each(Command(wake=0, stop=True))
        await self._lines.flush()
        # With its last report comes the load that a rank has not told of yet.
        left = [ended for rank, ended in enumerate(self._ended) if rank not in self.membership.lost]
        with suppress(TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*(ended.wait() for ended in left)), _LAST_REPORT_SECONDS
            )

    def close(self) -> None:
        self._lines.close()

    def _take(self, rank: int, report: Report) -> None:
        # A rank that was cut off may speak again: by now others have its work.
        if rank in self.membership.lost:
            return
        self._heard[rank].set()
        if report.news is not None:
            self._regroup(report.news)
        if report.expert_counts is not None and self._record is not None:
            self._record.add(rank, report.expert_counts)
        if report.tenant_news is not None and self._change is not None:
            self._change.take(rank, report.tenant_news)
        if report.is_last:
            self._ended[rank].set()
        if report.stats is not None:
            self._stats[rank] = report.stats
            self._imbalance.add(self._stats)
        for event in report.events:
            self._requests.deliver(event)
        if report.asleep_since is not None and report.asleep_since >= self._lines.wake:
            self._lines.send_all({})

    def _regroup(self, news: MembershipNews) -> None:
        """Ranks are lost: what they ran goes on elsewhere, from the tokens that came back. Or some
        have come back: they are spoken to again."""
        if news.epoch == self.membership.epoch:
            return
        before, self.membership, self._lines.lost = self.membership, news, news.lost
        returned = [
            rank
            for rank, address in news.links.items()
            if rank in before.lost or address != self._lines.addresses[rank]
        ]
        for rank in returned:
            self._take_back(rank, news.links[rank])
        self._imbalance.restart(self._stats, news.lost)
        if before.refusal and self._requests.refusal == before.refusal:
            self._requests.refusal = ""
        for rank in news.lost:
            # There is nothing to wait for.
            self._heard[rank].set()
            self._ended[rank].set()
        self._requests.exclude(news.lost, returned)
        if news.refusal:
            self.fail(news.refusal)
        # One that is there again may have been lost without news of it: it knows none of them.
        self._requests.resubmit({*news.lost, *returned})

    def _take_back(self, rank: int, address: str) -> None:
        self._ended[rank].clear()
        self._stats[rank] = RankStats(plan_rank=rank)
        if self._record is not None:
            self._record.restart(rank)
        self._lines.connect_again(rank, address)
