"""BridgeDispatcher: experts spread over several pools of unlike devices.

Inside a pool rows take its native exchange, as if there were no other. A token with experts in
another pool crosses to it once, to the rank there that has most of them; that rank forwards it
inside its pool, adds up what comes back, and returns one float32 sum.

Shape legend: T tokens here, D width, K experts chosen per token, N ranks, R rows, C crossings from
here, A arrivals here, P pools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moe_comm.bridge_links import BridgeLinks, SentTokens
from moe_comm.bridge_routing import Crossings, GroupPools, PoolSlots, cross, rows_of_pools
from moe_comm.bridge_rows import Wires
from moe_comm.dispatcher import ExpertRows, Handle
from moe_comm.home import (
    Choices,
    check_num_ranks,
    choose,
    on_device,
    sort_by_expert,
    sort_by_slot,
)
from moe_comm.routing import RoutingTable
from moe_comm.slot_exchange import SentRows, SlotExchange
from moe_comm.terms import TermOrder, Terms, order_terms
from moe_comm.transport.exchange import Exchange, Pending
from moe_comm.wire import CrossingRows


@dataclass(frozen=True, slots=True)
class _Home:
    """What is kept of the tokens here.

    Attributes:
        own: adds the rows of their experts in this pool; `sent` to each of its ranks.
        crossed: tokens to each rank of the group.
        pools: adds the pools' sums: this one's, then those that come back.
    """

    own: Terms
    sent: Sequence[int]
    crossed: Sequence[int]
    pools: Terms
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is kept of the tokens that enter the pool here.

    Attributes:
        terms: adds the rows of their experts in this pool; `sent` to each of its ranks.
        arrived: tokens from each rank of the group.
    """

    terms: Terms
    sent: Sequence[int]
    arrived: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Handle:
    """Attributes:
    received: rows from homes, and from entries, of each rank of this pool.
    return_R: takes the experts' rows back into the order in which they were received.
    """

    home: _Home
    entry: _Entry
    received: tuple[Sequence[int], Sequence[int]]
    return_R: torch.Tensor


@dataclass(frozen=True, slots=True)
class _PendingDispatch:
    native: SlotExchange
    slots_per_rank: Sequence[int]
    own: SentRows
    crossing: SentTokens
    home: _Home

    def poll(self) -> None:
        self.crossing.poll()
        self.own.poll()

    def finish(self) -> tuple[ExpertRows, _Handle]:
        # The crossing first: links are slow, and what arrives has a second way to go.
        forwarded, entry = self._forward()
        own_RD, own_NS = self.own.finish()
        forwarded_RD, forwarded_NS = forwarded.finish()
        rows, return_R = sort_by_expert(
            torch.cat([own_RD, forwarded_RD]), np.concatenate([own_NS, forwarded_NS])
        )
        received = (own_NS.sum(1).tolist(), forwarded_NS.sum(1).tolist())
        return rows, _Handle(self.home, entry, received, return_R)

    def _forward(self) -> tuple[SentRows, _Entry]:
        tokens, arrived = self.crossing.finish(self.home.dtype, self.home.device)
        slot_AK = tokens.slot_CK.numpy()
        choices = Choices(slot_AK, np.arange(slot_AK.size).reshape(slot_AK.shape))
        weights_AK = tokens.weights_CK.to(self.home.device)
        out = sort_by_slot(tokens.x_CD, weights_AK, choices, sum(self.slots_per_rank))
        forwarded = self.native.start(out, self.slots_per_rank)
        return forwarded, _Entry(out.terms, forwarded.counts, arrived)


@dataclass(frozen=True, slots=True)
class _PendingCombine:
    links: BridgeLinks
    handle: _Handle
    forwarded: Pending[torch.Tensor]
    own: Pending[torch.Tensor]

    def finish(self) -> torch.Tensor:
        home, entry = self.handle.home, self.handle.entry
        sums_AD = entry.terms.add_in_order(self.forwarded.finish(), torch.float32)
        returning = self.links.start_back(sums_AD, entry.arrived, home.crossed)
        own_TD = home.own.add(self.own.finish())
        sums_CD = returning.finish().to(home.device)
        return home.pools.add_in_order(torch.cat([own_TD, sums_CD]), home.dtype)


class BridgeDispatcher:
    """Implements Dispatcher for a group of several pools.

    A token's sum is the same, bit for bit, wherever in the group the token is and however its
    experts are spread inside the pools: as long as the experts stay in their pools, their rows
    come out equal, and the links lose nothing of the tokens' dtype. Experts in other pools, or
    all in one, are added in another order: in float32 that changes the last bits.

    Args:
        group: host tensors among all ranks of the expert-parallel group.
        native: among the ranks of this rank's pool in the group, on their devices.
        pools: the pool of each rank of the group.
        tables: by the model's layer; with the slots of each rank of the group, in its order.
        wires: the precision of the tokens on the link between each two pools.

    Raises:
        ValueError: a link is missing, or a table is for another number of ranks.
    """

    def __init__(
        self,
        group: Exchange,
        native: Exchange,
        pools: GroupPools,
        tables: Mapping[int, RoutingTable],
        wires: Wires,
    ) -> None:
        check_num_ranks(tables, group.size)
        name = pools.names[group.rank]
        ranks = pools.ranks_of(name)
        assert len(pools.names) == group.size and len(pools.order) > 1
        assert len(ranks) == native.size and ranks[native.rank] == group.rank
        self._native = SlotExchange(native)
        self._links = BridgeLinks(group, pools, wires)
        self._all_pools = pools
        self._tables = tables
        self._slots = {layer: PoolSlots(table, pools) for layer, table in tables.items()}
        self._ranks, self._pool, self._num_pools = ranks, pools.order.index(name), len(pools.order)

    def replace_tables(self, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, len(self._all_pools.names))
        self._slots = {
            layer: self._slots[layer]
            if table is self._tables[layer]
            else PoolSlots(table, self._all_pools)
            for layer, table in tables.items()
        }
        self._tables = tables

    @property
    def bytes_sent(self) -> int:
        return self._native.bytes_sent + sum(self._links.bytes_by_link.values())

    @property
    def bytes_by_link(self) -> Mapping[str, int]:
        return dict(self._links.bytes_by_link)

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> _PendingDispatch:
        table, slots = self._tables[layer], self._slots[layer]
        choices = choose(table, ids_TK, keys_T)
        inner = Choices(slots.inside(self._pool, choices.slot_TK), choices.choice_TK)
        slots_per_rank = [table.slots_per_rank[rank] for rank in self._ranks]
        out = sort_by_slot(x_TD, weights_TK, inner, sum(slots_per_rank))
        own = self._native.start(out, slots_per_rank)
        crossings = cross(slots, self._pool, choices.slot_TK, keys_T.numpy().view(np.uint64))
        tokens = _crossing_tokens(x_TD, weights_TK, choices, crossings)
        crossing = self._links.start(tokens, crossings.counts)
        pools = self._pool_sums(out.order, crossings, x_TD.device)
        home = _Home(out.terms, own.counts, crossings.counts, pools, x_TD.dtype, x_TD.device)
        return _PendingDispatch(self._native, slots_per_rank, own, crossing, home)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> _PendingCombine:
        assert isinstance(handle, _Handle)
        own, forwarded = handle.received
        by_sender_RD = y_RD.index_select(0, handle.return_R)
        own_RD, forwarded_RD = by_sender_RD[: sum(own)], by_sender_RD[sum(own) :]
        return _PendingCombine(
            self._links,
            handle,
            self._native.start_back(forwarded_RD, forwarded, handle.entry.sent),
            self._native.start_back(own_RD, own, handle.home.sent),
        )

    def _pool_sums(self, own: TermOrder, crossings: Crossings, device: torch.device) -> Terms:
        row_TP = rows_of_pools(own, crossings, self._pool, self._num_pools)
        order = order_terms(row_TP >= 0)
        row_S, place_T = on_device((row_TP.reshape(-1)[order.term_S], order.place_T), device)
        return Terms(row_S, None, order.lengths, None if order.is_sorted else place_T)


def _crossing_tokens(
    x_TD: torch.Tensor, weights_TK: torch.Tensor, choices: Choices, crossings: Crossings
) -> CrossingRows:
    weights_CK = weights_TK.cpu().numpy().take(choices.choice_TK[crossings.token_C])
    return CrossingRows(
        x_TD.index_select(0, torch.from_numpy(crossings.token_C).to(x_TD.device)),
        torch.from_numpy(crossings.slot_CK),
        torch.from_numpy(weights_CK),
    )
