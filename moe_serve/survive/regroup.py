"""What the ranks do that are there when others are lost or come back: a new plan, new exchanges,
then the step that was broken off once more."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_comm.transport.lifeline import Record
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.control.meeting.together import together
from moe_serve.control.planning.groups import part_of
from moe_serve.errors import AgreedError
from moe_serve.exchanges import make_dispatcher, open_exchanges, routing_tables
from moe_serve.kv_join import KvJoin
from moe_serve.load_rank import LoadedRank, RankParts
from moe_serve.messages import MembershipNews
from moe_serve.survive.next_plan import Standpoint, with_all_experts
from moe_serve.survive.welcome import Welcome, encode_welcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """Attributes:
    exchange: what the step headers run over from now on.
    news: what the front end must know; with a refusal the ranks compute nothing any more.
    stops: some rank has been told to stop; that is meant for all of them.
    """

    exchange: Exchange
    news: MembershipNews
    stops: bool


class _Card(msgspec.Struct, frozen=True):
    """What each rank says of itself when those meet that are there.

    Attributes:
        link: addresses of its link.
        kv_end: see KvJoin; empty where it has none.
    """

    link: str
    kv_end: bytes
    stops: bool


class Survivor:
    """One rank's part in going on without others, or with them again; all that are there do the
    same together.

    Args:
        parts, loaded: of the rank as it was brought up.
        address: of the rank's link.
        kv: its part in handovers, where there are any.
        secret: what ranks that come back must know; see Welcome.
    """

    def __init__(
        self,
        meeting: Meeting,
        parts: RankParts,
        loaded: LoadedRank,
        address: str,
        kv: KvJoin | None,
        secret: bytes,
    ) -> None:
        self._meeting = meeting
        self._parts = parts
        self._loaded = loaded
        self._address = address
        self._kv = kv
        self._secret = secret
        self._all_groups = parts.groups
        self._lost: frozenset[int] = frozenset()
        self._whole = parts.deployment.plan

    def welcome(self) -> bytes:
        """What plan rank 0 tells ranks that come back; any thread may ask."""
        memories = tuple(memory.device_bytes for memory in self._parts.deployment.memories)
        # It may be asked before this rank has acted on the loss.
        plan = self._whole if self._lost else self._loaded.mover.plan
        kv_ends = self._kv.ends if self._kv is not None else {}
        return encode_welcome(Welcome(memories, self._secret, plan, kv_ends))

    def go_on(self, stops: bool) -> Regrouped:
        """After a PeerLostError.

        Args:
            stops: this rank has been told to stop.

        Raises:
            PeerLostError: there is no going on: plan rank 0 or its mpirun was lost, or nobody.
        """
        self._loaded.load.drop_step()
        while True:
            record = self._meeting.leave_lost_behind()
            # Who is lost meanwhile is known a moment after an exchange has broken.
            with suppress(PeerLostError):
                return self._regroup(record, stops)

    def _regroup(self, record: Record, stops: bool) -> Regrouped:
        self._meeting.meet_again()
        self._meet_again(record.lost)
        cards = self._show_cards(stops)
        refusal = ""
        try:
            self._replan(record.lost)
        except AgreedError as error:
            if self._meeting.has_changed:
                raise PeerLostError(str(error)) from error
            refusal = f"the server cannot go on: {error}"
        self._lost = record.lost
        news = MembershipNews(
            record.epoch,
            tuple(sorted(record.lost)),
            refusal,
            {rank: card.link for rank, card in cards.items()},
            self._loaded.mover.plan,
        )
        _tell(record, cards, refusal)
        told_to_stop = any(card.stops for card in cards.values())
        return Regrouped(self._parts.exchanges.steps, news, told_to_stop)

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

    def _show_cards(self, stops: bool) -> Mapping[int, _Card]:
        """Those of all that are there, by plan rank; who hands over knows where the others are."""
        own = _Card(self._address, self._kv.own if self._kv is not None else b"", stops)
        told = self._meeting.exchange.allgather_bytes(msgspec.msgpack.encode(own))
        cards = {
            rank: msgspec.msgpack.decode(each, type=_Card)
            for rank, each in zip(self._meeting.ranks, told, strict=True)
        }
        if self._kv is not None:
            ends = {rank: card.kv_end for rank, card in cards.items() if card.kv_end}
            self._kv = self._kv.update(ends)
        return cards

    def _replan(self, lost: frozenset[int]) -> None:
        parts, mover, everybody = self._parts, self._loaded.mover, self._meeting.exchange
        plan = self._next_plan(lost)
        ranks = part_of(parts.groups.steps, parts.rank)
        together(everybody, lambda: mover.prepare(plan, partial(routing_tables, ranks=ranks)))
        dispatcher = make_dispatcher(
            parts.config, plan, parts.rank, parts.groups, parts.exchanges, self._loaded.pacer
        )
        self._loaded.dispatcher.replace(dispatcher)
        self._loaded.runner.rebind(parts.exchanges.attention)
        mover.commit()

    def _next_plan(self, lost: frozenset[int]) -> Plan:
        """As plan rank 0 has it: where ranks came back that had a place in it before, the plan
        that was in force when all were there, or what can be had of it.

        Raises:
            AgreedError: there is none that those can run that are there.
        """
        parts, mover, everybody = self._parts, self._loaded.mover, self._meeting.exchange
        own = Standpoint(mover.plan, self._whole, tuple(self._lost - lost))
        text = msgspec.msgpack.encode(own) if parts.rank == 0 else b""
        told = msgspec.msgpack.decode(everybody.allgather_bytes(text)[0], type=Standpoint)
        epoch = max(map(int, everybody.allgather_bytes(b"%d" % mover.epoch)))
        *better, last = (
            partial(with_all_experts, parts.config, parts.deployment, parts.groups, plan, lost)
            for plan in told.plans(lost, epoch)
        )
        for complete in better:
            with suppress(AgreedError):
                plan = together(everybody, complete)
                lacking = [
                    int(each) for each in everybody.allgather_bytes(b"%d" % mover.lacking(plan))
                ]
                if not any(lacking):
                    return plan
            logger.warning(
                "the plan from before the loss does not fit beside what ranks hold by now: they "
                "keep that"
            )
        return together(everybody, last)


def _tell(record: Record, cards: Mapping[int, _Card], refusal: str) -> None:
    logger.warning(
        "membership epoch %d: plan ranks %s are there, lost are %s%s",
        record.epoch,
        ", ".join(map(str, cards)),
        ", ".join(map(str, sorted(record.lost))) or "none",
        f"; {refusal}" if refusal else "",
    )
