"""The home side of a dispatch, the same for every dispatcher: rows out, and their sum back.

Shape legend: T tokens here, D width, K experts chosen per token, G slots of all ranks, R = T * K.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from moe_comm.routing import RoutingTable

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
) -> tuple[torch.Tensor, torch.Tensor, HomeTokens]:
    """-> rows_RD, one for each (token, expert), sorted by rank and slot; counts_G on the host."""
    num_chosen = ids_TK.shape[1]
    ids_TK, by_id_TK = ids_TK.sort(dim=1, stable=True)
    slot_R = table.choose_slots(ids_TK, keys_T).view(-1)
    order_R = slot_R.argsort(stable=True)
    rows_RD = x_TD.index_select(0, order_R // num_chosen)
    counts_G = torch.bincount(slot_R, minlength=table.num_slots).cpu()
    row_KT = order_R.argsort().view(-1, num_chosen).t()
    weights_KT1 = weights_TK.gather(1, by_id_TK).t().unsqueeze(-1)
    return rows_RD, counts_G, HomeTokens(row_KT, weights_KT1)


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
        terms = rows_RD.index_select(0, tokens.row_KT.reshape(-1)).float()
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
