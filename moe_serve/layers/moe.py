"""The mixture-of-experts layer: route, dispatch, experts, combine, add shared experts.

Shape legend: T tokens here, D width, K experts chosen per token, R rows received.
"""

from dataclasses import dataclass

import torch
from moe_comm.ordered_sum import gather_shares, ordered_sum

from moe_serve.layers.context import ForwardContext
from moe_serve.layers.gate import Gate
from moe_serve.layers.linear import ExpertsLayer
from moe_serve.layers.mlp import DenseMlp


@dataclass(frozen=True, slots=True)
class MoeLayer:
    """Every rank of the EP group runs it in every step, tokens or not.

    Ranks that share their attention have the same tokens. Each sends its own share of them to
    their experts; what comes back is gathered in the exchange that adds the shared experts' parts.

    Attributes:
        layer: the model's layer, which picks the placement.
        experts: those this rank holds.
        shared: computed at home while tokens travel; None where the model has none.
    """

    layer: int
    gate: Gate
    experts: ExpertsLayer
    shared: DenseMlp | None = None

    def __call__(self, x_TD: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        dispatcher, own = context.dispatcher, context.own_tokens
        own_TD = x_TD[own]
        ids_TK, weights_TK = self.gate(own_TD)
        pending = dispatcher.start(self.layer, own_TD, ids_TK, weights_TK, context.keys_T[own])
        shared_TD = None if self.shared is None else self.shared.part(x_TD, context, pending.poll)
        received, handle = pending.finish()
        y_RD = self.experts(received.rows_RD, received.counts_E)
        y_TD = dispatcher.start_combine(y_RD, handle).finish()
        if shared_TD is None:
            return gather_shares(context.attention, y_TD, len(x_TD))
        return ordered_sum(context.attention, shared_TD, y_TD)
