"""A model's routed experts alone, for a rank that never has tokens of its own.

Shape legend: T tokens here (none), D width, K experts chosen per token, S sampled tokens (none),
V vocabulary.
"""

from dataclasses import dataclass

import torch

from moe_serve.errors import UnsupportedError
from moe_serve.layers.context import CacheSpec, ForwardContext
from moe_serve.layers.linear import ExpertsLayer
from moe_serve.models.feed_forward import routed_experts
from moe_serve.models.shape import ModelShape, MoeShape
from moe_serve.weights.loader import WeightLoader


@dataclass(frozen=True, slots=True)
class ExpertsModel:
    """Meets the other ranks of its EP group in every MoE layer, and computes what they send.

    Attributes:
        experts: of each MoE layer, those this rank holds.
        nothing_TD: no tokens, in the dtype and on the device of those that others send.
    """

    shape: ModelShape
    moe: MoeShape
    experts: tuple[ExpertsLayer, ...]
    nothing_TD: torch.Tensor

    def __call__(self, context: ForwardContext) -> torch.Tensor:
        """-> logits_SV of no tokens."""
        nothing_TK = self.nothing_TD.new_empty(0, self.moe.num_chosen, dtype=torch.float32)
        ids_TK, keys_T = nothing_TK.long(), torch.empty(0, dtype=torch.int64)
        for layer, experts in zip(self.shape.moe_layers, self.experts, strict=True):
            tokens = (self.nothing_TD, ids_TK, nothing_TK, keys_T)
            received, handle = context.dispatcher.start(layer, *tokens).finish()
            y_RD = experts(received.rows_RD, received.counts_E)
            context.dispatcher.start_combine(y_RD, handle).finish()
        return self.nothing_TD.new_empty(0, self.vocab_size, dtype=torch.float32)

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        return ()

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size


def build_experts(shape: ModelShape, loader: WeightLoader) -> ExpertsModel:
    """Read the routed experts of the loader's rank, and nothing else.

    Raises:
        UnsupportedError: the model has none.
    """
    if shape.moe is None:
        raise UnsupportedError(
            f"{shape.architecture} has no experts for a pool with role: experts; "
            "give the pool another role"
        )
    return ExpertsModel(
        shape,
        shape.moe,
        tuple(routed_experts(loader, layer, shape.moe) for layer in shape.moe_layers),
        torch.empty(0, shape.width, dtype=loader.dtype, device=loader.device),
    )
