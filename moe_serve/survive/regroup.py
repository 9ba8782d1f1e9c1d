"""What the ranks do that are left when others are lost: a new plan, new exchanges, then the step
that was broken off once more."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.control.groups import part_of
from moe_serve.control.together import together
from moe_serve.errors import AgreedError, PlacementError
from moe_serve.exchanges import make_dispatcher, open_exchanges, routing_tables
from moe_serve.load_rank import LoadedRank, RankParts
from moe_serve.survive.remaining_plan import (
    Missing,
    choose_ranks,
    find_missing,
    plan_without,
    with_missing,
)
from moe_serve.survive.room import free_slots
from moe_serve.types import MembershipNews

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
    """One rank's part in going on without others; all that are left do the same together.

    Args:
        parts, loaded: of the rank as it was brought up.
    """

    def __init__(self, meeting: Meeting, parts: RankParts, loaded: LoadedRank) -> None:
        self._meeting = meeting
        self._parts = parts
        self._loaded = loaded

    def go_on(self) -> Regrouped:
        """After a PeerLostError.

        Raises:
            PeerLostError: there is no going on: plan rank 0 or its mpirun was lost, or nobody.
        """
        while True:
            try:
                return self._regroup()
            except PeerLostError:
                if not self._meeting.has_lost_more:
                    raise

    def _regroup(self) -> Regrouped:
        record = self._meeting.leave_lost_behind()
        self._meet_again(record.lost)
        refusal = ""
        try:
            self._replan(record.lost)
        except AgreedError as error:
            if self._meeting.has_lost_more:
                raise PeerLostError(str(error)) from error
            refusal = f"the server cannot go on: {error}"
        news = MembershipNews(record.epoch, tuple(sorted(record.lost)), refusal)
        logger.warning(
            "membership epoch %d: plan ranks %s are lost%s",
            record.epoch,
            ", ".join(map(str, news.lost)),
            f"; {refusal}" if refusal else "",
        )
        return Regrouped(self._parts.exchanges.steps, news)

    def _meet_again(self, lost: Collection[int]) -> None:
        parts = self._parts
        groups = parts.groups.without(lost)
        collective = parts.config.pool_of(parts.rank).collective
        device = parts.device.torch_device
        exchanges = open_exchanges(groups, self._meeting, collective, device)
        self._parts = replace(parts, groups=groups, exchanges=exchanges)
        # One may have run a new plan at a header that was lost on its way to another.
        own = self._loaded.mover.epoch
        epochs = exchanges.steps.allgather_bytes(b"%d" % own)
        self._loaded.mover.reach(max(map(int, epochs)))

    def _replan(self, lost: Collection[int]) -> None:
        parts, mover, everybody = self._parts, self._loaded.mover, self._meeting.exchange
        left = plan_without(mover.plan, lost)
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
