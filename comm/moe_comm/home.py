"""The home side of a dispatch, the same for every dispatcher: rows out, and their sum back.

Shape legend: T tokens here, D width, K experts chosen per token, G slots of all ranks, R = T * K.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from moe_comm.routing import RoutingTable, inverse_order
from moe_comm.transport.exchange import Ints

# Up to so many tokens their rows are gathered at once: fewer and larger ops. Above, one expert
# choice at a time: the float32 copies stay K times smaller. Both round alike.
_NUM_TOKENS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class HomeTokens:
    """What is kept of the tokens until their rows come back.

    Attributes:
        row_KT: where the row of each token's k-th expert, by ascending expert id, is among the
            rows sent.
        weights_KT1: float32, in the same order.
    """

    row_KT: torch.Tensor
    weights_KT1: torch.Tensor


def sort_by_slot(
    table: RoutingTable,
    x_TD: torch.Tensor,
    ids_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    keys_T: torch.Tensor,
) -> tuple[torch.Tensor, Ints, HomeTokens]:
    """-> rows_RD, one for each (token, expert), sorted by rank and slot, and their counts_G.

    The index maths is done on the host, where the counts are needed anyway: numpy takes a third
    of the time that torch takes for arrays this small, and one copy brings all indices over.
    """
    num_tokens, num_chosen = ids_TK.shape
    ids, keys = ids_TK.cpu().numpy(), keys_T.cpu().numpy().view(np.uint64)
    slot_R = table.choose_slots(ids, keys).reshape(-1)
    order_R = slot_R.argsort(kind="stable")
    token_R, choice_KT, row_KT = index = np.empty((3, num_tokens * num_chosen), dtype=np.int64)
    np.floor_divide(order_R, num_chosen, out=token_R)
    first_of_token_T1 = np.arange(0, len(order_R), num_chosen)[:, None]
    by_id_TK = ids.argsort(axis=1, kind="stable") + first_of_token_T1
    choice_KT[:] = by_id_TK.T.reshape(-1)
    inverse_order(order_R).take(choice_KT, out=row_KT)
    places = torch.from_numpy(index).to(x_TD.device)
    weights_KT1 = weights_TK.take(places[1]).view(num_chosen, num_tokens, 1)
    tokens = HomeTokens(places[2].view(num_chosen, num_tokens), weights_KT1)
    counts_G = np.bincount(slot_R, minlength=table.num_slots)
    return x_TD.index_select(0, places[0]), counts_G, tokens


def add_at_home(rows_RD: torch.Tensor, tokens: HomeTokens) -> torch.Tensor:
    """-> y_TD: the weighted rows of each token, added in fp32 by ascending expert id.

    Product and sum are separate operations: fused ones round differently in the vectorised and
    the remaining part of a tensor, and so would depend on what else is in the batch.
    """
    terms = iter(_terms(rows_RD, tokens))
    total_TD = next(terms)
    for term_TD in terms:
        total_TD += term_TD
    return total_TD.to(rows_RD.dtype)


def _terms(rows_RD: torch.Tensor, tokens: HomeTokens) -> Iterable[torch.Tensor]:
    num_chosen, num_tokens = tokens.row_KT.shape
    width = rows_RD.shape[1]
    if num_tokens <= _NUM_TOKENS_AT_ONCE:
        terms = rows_RD.index_select(0, tokens.row_KT.view(-1)).float()
        return terms.view(num_chosen, num_tokens, width).mul_(tokens.weights_KT1).unbind(0)
    return (
        rows_RD.index_select(0, row_T).float().mul_(weights_T1)
        for row_T, weights_T1 in zip(tokens.row_KT, tokens.weights_KT1, strict=True)
    )


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
