"""Sums of some of the rows at hand, one for each token, in fp32 and in a fixed order.

Tokens may have unequal numbers of rows. In order of falling numbers, those that have more than k
are the first ones: the sums take their k-th terms all at once, without padding.

Shape legend: T tokens, K the most terms of a token, S terms of all tokens, R rows, D width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from moe_comm.routing import inverse_order
from moe_comm.transport.exchange import Ints

# Up to so many tokens their rows are gathered at once: fewer and larger ops. Above, the k-th terms
# of all tokens at a time: the float32 copies stay K times smaller. Both round alike.
_NUM_TOKENS_AT_ONCE = 64


Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TermOrder:
    """The terms of all tokens: all first ones, then all second ones, and so on.

    Attributes:
        term_S: index into the T * K places where terms may be.
        lengths: how many tokens have a first term, a second one, ...; falling.
        place_T: where each token's sum is; tokens without terms come last, and have none.
    """

    term_S: Ints
    lengths: Sequence[int]
    place_T: Ints

    @property
    def is_sorted(self) -> bool:
        """Whether the sums are in the order of the tokens."""
        return self.lengths[-1] == len(self.place_T)


def order_terms(is_term_TK: Bools) -> TermOrder:
    """Each token's terms keep their order."""
    num_tokens, most = is_term_TK.shape
    if is_term_TK.all():
        places_TK = np.arange(num_tokens * most).reshape(num_tokens, most)
        return TermOrder(places_TK.T.reshape(-1), [num_tokens] * most, np.arange(num_tokens))
    counts_T = is_term_TK.sum(1)
    place_T = inverse_order((-counts_T).argsort(kind="stable"))
    lengths_K = (counts_T[:, None] > np.arange(most)).sum(0)
    first_K = lengths_K.cumsum() - lengths_K
    target_TK = first_K[is_term_TK.cumsum(1) - 1] + place_T[:, None]
    term_S = np.empty(lengths_K.sum(), dtype=np.int64)
    term_S[target_TK[is_term_TK]] = np.flatnonzero(is_term_TK)
    return TermOrder(term_S, [length for length in lengths_K.tolist() if length] or [0], place_T)


@dataclass(frozen=True, slots=True)
class Terms:
    """What `TermOrder` says, with the rows that the terms are and their weights.

    Attributes:
        row_S: the row that each term is.
        weights_S1: float32; None where all are 1.
        lengths: as in TermOrder.
        place_T: as in TermOrder; None where the sums are in the order of the tokens.
    """

    row_S: torch.Tensor
    weights_S1: torch.Tensor | None
    lengths: Sequence[int]
    place_T: torch.Tensor | None

    def add(self, rows_RD: torch.Tensor) -> torch.Tensor:
        """-> float32 sums of the tokens that have terms, in the order of `place_T`.

        Product and sum are separate operations: fused ones round differently in the vectorised
        and the remaining part of a tensor, and so would depend on what else is in the batch.
        """
        terms = iter(self._weighted(rows_RD))
        total_TD = next(terms)
        for term_TD, length in zip(terms, self.lengths[1:], strict=True):
            first_TD = total_TD if length == self.lengths[0] else total_TD[:length]
            first_TD += term_TD
        return total_TD

    def add_in_order(self, rows_RD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """-> the sums in the order of the tokens; each must have a term."""
        total_TD = self.add(rows_RD).to(dtype)
        return total_TD if self.place_T is None else total_TD.index_select(0, self.place_T)

    def _weighted(self, rows_RD: torch.Tensor) -> Iterable[torch.Tensor]:
        lengths = list(self.lengths)
        if lengths[0] <= _NUM_TOKENS_AT_ONCE:
            terms_SD = self._gather(rows_RD, self.row_S, self.weights_S1)
            return terms_SD.split_with_sizes(lengths)
        rows = self.row_S.split_with_sizes(lengths)
        if self.weights_S1 is None:
            return (self._gather(rows_RD, row_T, None) for row_T in rows)
        weights = self.weights_S1.split_with_sizes(lengths)
        return (self._gather(rows_RD, *each) for each in zip(rows, weights, strict=True))

    @staticmethod
    def _gather(
        rows_RD: torch.Tensor, row_S: torch.Tensor, weights_S1: torch.Tensor | None
    ) -> torch.Tensor:
        terms_SD = rows_RD.index_select(0, row_S).float()
        return terms_SD if weights_S1 is None else terms_SD.mul_(weights_S1)
