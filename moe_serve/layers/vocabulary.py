"""Both ends of a model, where tokens are numbers: the embedding and the head.

In an attention group each member holds some rows of the vocabulary (Megatron-LM, Shoeybi et al.
2019, arXiv:1909.08053).

Shape legend: T tokens, D width, S sampled tokens, V vocabulary, v this member's part of it.
"""

from dataclasses import dataclass

import torch
from moe_comm.ordered_sum import ordered_sum

from moe_serve.layers.context import ForwardContext
from moe_serve.layers.linear import LinearLayer


@dataclass(frozen=True, slots=True)
class Embedding:
    """Attributes:
    rows_vD: this member's rows.
    first: the token id of the first of them.
    """

    rows_vD: torch.Tensor
    first: int = 0

    def __call__(self, context: ForwardContext) -> torch.Tensor:
        """-> x_TD of all tokens, on every member."""
        if context.attention.size == 1:
            return self.rows_vD.index_select(0, context.token_ids_T)
        place_T = context.token_ids_T - self.first
        num_rows = self.rows_vD.shape[0]
        elsewhere_T = (place_T < 0) | (place_T >= num_rows)
        part_TD = self.rows_vD.index_select(0, place_T.clamp_(0, num_rows - 1))
        part_TD.masked_fill_(elsewhere_T.unsqueeze(1), 0)
        return ordered_sum(context.attention, part_TD)


@dataclass(frozen=True, slots=True)
class Head:
    """Attributes:
    product: D -> v.
    """

    product: LinearLayer
    vocab_size: int

    def __call__(self, x_SD: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """-> logits_SV in float32, on every member."""
        logits_Sv = self.product(x_SD)
        if context.attention.size == 1:
            return logits_Sv.float()
        num_sampled = len(x_SD)
        counts = [num_sampled * size for size in context.shard.sizes(self.vocab_size)]
        rows = context.attention.allgather_rows(logits_Sv.t().reshape(-1).unsqueeze(1), counts)
        return rows.view(self.vocab_size, num_sampled).t().contiguous().float()
