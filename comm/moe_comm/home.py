"""From tokens to rows sorted by slot, and what their sums need; the same for every dispatcher.

Shape legend: T tokens here, D width, K experts chosen per token, G slots, N senders, S slots here,
R rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moe_comm.dispatcher import ExpertRows
from moe_comm.routing import RoutingTable, Slots, inverse_order, slot_order
from moe_comm.terms import TermOrder, Terms, order_terms
from moe_comm.transport.exchange import Ints


@dataclass(frozen=True, slots=True)
class SlotRows:
    """One row for each (token, expert), on its way to the expert's slot.

    Attributes:
        rows_RD: sorted by slot, and so by rank.
        counts_G: of each slot.
        order, terms: add the rows that come back, in the same order, by ascending expert id.
    """

    rows_RD: torch.Tensor
    counts_G: Ints
    order: TermOrder
    terms: Terms


@dataclass(frozen=True, slots=True)
class Choices:
    """The slots that serve the tokens, on the host: numpy takes a third of the time that torch
    takes for arrays this small, and their counts are needed there anyway.

    Attributes:
        slot_TK: of each token's experts by ascending expert id; -1 where there is none.
        choice_TK: where these were among the experts as they were chosen, T * K of them.
    """

    slot_TK: Slots
    choice_TK: Ints


def choose(table: RoutingTable, ids_TK: torch.Tensor, keys_T: torch.Tensor) -> Choices:
    """The slots, among those of all ranks, that serve each token's experts."""
    ids, keys = ids_TK.cpu().numpy(), keys_T.numpy().view(np.uint64)
    first_of_token_T1 = np.arange(0, ids.size, ids.shape[1])[:, None]
    choice_TK = ids.argsort(axis=1, kind="stable") + first_of_token_T1
    return Choices(table.choose_slots(ids, keys).take(choice_TK), choice_TK)


def sort_by_slot(
    x_TD: torch.Tensor, weights_TK: torch.Tensor, choices: Choices, num_slots: int
) -> SlotRows:
    """The rows of the choices that have a slot.

    Args:
        weights_TK: float32, as the experts were chosen.
    """
    slot_R, num_chosen = choices.slot_TK.reshape(-1), choices.slot_TK.shape[1]
    counts = np.bincount(slot_R + 1, minlength=num_slots + 1)
    num_without = int(counts[0])
    order_R = slot_R.argsort(kind="stable")
    order = order_terms(choices.slot_TK >= 0)
    index = (
        order_R[num_without:] // num_chosen,
        inverse_order(order_R).take(order.term_S) - num_without,
        choices.choice_TK.take(order.term_S),
        *(() if order.is_sorted else (order.place_T,)),
    )
    token_R, row_S, choice_S, *place_T = on_device(index, x_TD.device)
    weights_S1 = weights_TK.take(choice_S).view(-1, 1)
    terms = Terms(row_S, weights_S1, order.lengths, place_T[0] if place_T else None)
    return SlotRows(x_TD.index_select(0, token_R), counts[1:], order, terms)


def on_device(index: Sequence[Ints], device: torch.device) -> tuple[torch.Tensor, ...]:
    """All of them in one copy."""
    together = torch.from_numpy(np.concatenate(index)).to(device)
    return together.split_with_sizes([len(each) for each in index])


def sort_by_expert(rows_RD: torch.Tensor, counts_NS: Ints) -> tuple[ExpertRows, torch.Tensor]:
    """Received rows in the order of this rank's slots.

    Args:
        rows_RD: by sender, and there by slot.

    Returns:
        The rows, and return_R, which takes what becomes of them back into the given order.
    """
    order_R = slot_order(counts_NS)
    to_slots_R, return_R = on_device((order_R, inverse_order(order_R)), rows_RD.device)
    counts_E = torch.from_numpy(counts_NS.sum(0))
    return ExpertRows(rows_RD.index_select(0, to_slots_R), counts_E), return_R


def check_num_ranks(tables: Mapping[int, RoutingTable], num_ranks: int) -> None:
    """
    Raises:
        ValueError: a table places experts on another number of ranks than the group has.
    """
    for layer, table in tables.items():
        if len(table.slots_per_rank) != num_ranks:
            raise ValueError(
                f"layer {layer}: the plan places experts on {len(table.slots_per_rank)} ranks, the"
                f" expert-parallel group has {num_ranks}; make the plan for this group"
            )
