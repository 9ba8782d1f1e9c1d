"""What the ranks do that are there when others are lost or come back: a new plan, new exchanges,
then the step that was broken off once more."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.control.groups import part_of
from moe_serve.control.together import together
from moe_serve.errors import AgreedError, PlacementError
from moe_serve.exchanges import make_dispatcher, open_exchanges, routing_tables
from moe_serve.load_rank import LoadedRank, RankParts
from moe_serve.messages import MembershipNews
from moe_serve.survive.remaining_plan import (
    Missing,
    choose_ranks,
    find_missing,
    plan_without,
    with_missing,
)
from moe_serve.survive.room import free_slots

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """Attributes:
    exchange: what the step headers run over from now on.
    news: what the front end must know; with a refusal the ranks compute nothing any more.
    """

    exchange: Exchange
    news: MembershipNews


class Survivor:
    """One rank's part in going on without others, or with them again; all that are there do the
    same together.

    Args:
        parts, loaded: of the rank as it was brought up.
        address: of the rank's link.
    """

    def __init__(
        self, meeting: Meeting, parts: RankParts, loaded: LoadedRank, address: str
    ) -> None:
        self._meeting = meeting
        self._parts = parts
        self._loaded = loaded
        self._address = address
        self._all_groups = parts.groups
        self._lost: frozenset[int] = frozenset()
        self._whole = parts.deployment.plan

    def go_on(self) -> Regrouped:
        """After a PeerLostError.

        Raises:
            PeerLostError: there is no going on: plan rank 0 or its mpirun was lost, or nobody.
        """
        while True:
            try:
                return self._regroup()
            except PeerLostError:
                if not self._meeting.has_changed:
                    raise

    def _regroup(self) -> Regrouped:
        record = self._meeting.leave_lost_behind()
        self._meet_again(record.lost)
        addresses = self._meeting.exchange.allgather_bytes(self._address.encode())
        refusal = ""
        try:
            self._replan(record.lost)
        except AgreedError as error:
            if self._meeting.has_changed:
                raise PeerLostError(str(error)) from error
            refusal = f"the server cannot go on: {error}"
        self._lost = record.lost
        there = [rank for rank in range(self._meeting.launch.size) if rank not in record.lost]
        links = {rank: each.decode() for rank, each in zip(there, addresses, strict=True)}
        news = MembershipNews(record.epoch, tuple(sorted(record.lost)), refusal, links)
        logger.warning(
            "membership epoch %d: plan ranks %s are there, lost are %s%s",
            record.epoch,
            ", ".join(map(str, there)),
            ", ".join(map(str, news.lost)) or "none",
            f"; {refusal}" if refusal else "",
        )
        return Regrouped(self._parts.exchanges.steps, news)

    def _meet_again(self, lost: frozenset[int]) -> None:
        parts = self._parts
        groups = self._all_groups.without(lost)
        collective = parts.config.pool_of(parts.rank).collective
        device = parts.device.torch_device
        exchanges = open_exchanges(groups, self._meeting, collective, device)
        self._parts = replace(parts, groups=groups, exchanges=exchanges)
        # One may have run a new plan at a header that was lost on its way to another.
        own = self._loaded.mover.epoch
        epochs = exchanges.steps.allgather_bytes(b"%d" % own)
        self._loaded.mover.reach(max(map(int, epochs)))
        if not self._lost:
            self._whole = self._loaded.mover.plan

    def _base(self, lost: frozenset[int]) -> Plan:
        """The plan to go on from, as plan rank 0 has it: the one in force, or where ranks came
        back that had a place in it before, the one that was in force when all were there."""
        own = self._whole if self._lost - lost else self._loaded.mover.plan
        text = msgspec.json.encode(own) if self._parts.rank == 0 else b""
        told = self._meeting.exchange.allgather_bytes(text)[0]
        newest = max(
            map(int, self._meeting.exchange.allgather_bytes(b"%d" % self._loaded.mover.epoch))
        )
        return replace(msgspec.json.decode(told, type=Plan), epoch=newest)

    def _replan(self, lost: frozenset[int]) -> None:
        parts, mover, everybody = self._parts, self._loaded.mover, self._meeting.exchange
        left = plan_without(self._base(lost), lost)
        plan = together(everybody, lambda: self._with_all_experts(left, lost))
        ranks = part_of(parts.groups.steps, parts.rank)
        together(everybody, lambda: mover.prepare(plan, partial(routing_tables, ranks=ranks)))
        dispatcher = make_dispatcher(
            parts.config, plan, parts.rank, parts.groups, parts.exchanges, self._loaded.pacer
        )
        self._loaded.dispatcher.replace(dispatcher)
        self._loaded.runner.rebind(parts.exchanges.attention)
        mover.commit()

    def _with_all_experts(self, plan: Plan, lost: Collection[int]) -> Plan:
        """
        Raises:
            PlacementError: nobody is left that takes requests, or experts are missing for which
                there is no room.
        """
        parts = self._parts
        if not parts.groups.homes(plan):
            raise PlacementError("every rank that takes requests is lost; start its pool again")
        missing = find_missing(plan, lost)
        room = free_slots(parts.config, parts.deployment, plan, missing, lost)
        places = choose_ranks(plan, missing, lost, room)
        if len(places) < len(missing):
            raise PlacementError(_lament(missing, [each for each in missing if each not in places]))
        if missing:
            logger.warning("%d experts are loaded again where there is room", len(missing))
        return with_missing(plan, places)


def _lament(missing: Sequence[Missing], homeless: Sequence[Missing]) -> str:
    first = homeless[0]
    return (
        f"{len(missing)} experts were lost with their ranks, and the memory of those that are left "
        f"has no room for {len(homeless)} of them, the first is expert {first.expert} of layer "
        f"{first.layer}; start the lost pool again, lower cache.num_pages, or give the plan "
        "replicas"
    )
