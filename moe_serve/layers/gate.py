"""Which experts each token goes to, and with what weight; all in float32.

Shape legend: T tokens, D width, E experts of the model, K experts chosen per token, N groups.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_serve.layers.linear import LinearLayer


class Gate(Protocol):
    def __call__(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-> ids_TK (int64) and weights_TK (float32)."""
        ...


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """Only experts of the token's best groups may be chosen (DeepSeek-V2, arXiv:2405.04434).

    Attributes:
        num_scored: a group's score is the sum of its best so many experts.
    """

    num_groups: int
    num_kept: int
    num_scored: int

    def __call__(self, scores_TE: torch.Tensor, excluded: float) -> torch.Tensor:
        """The scores, with `excluded` in place of those of the other groups."""
        num_tokens, num_experts = scores_TE.shape
        scores_TNe = scores_TE.view(num_tokens, self.num_groups, num_experts // self.num_groups)
        group_TN = scores_TNe.topk(self.num_scored, dim=-1).values.sum(dim=-1)
        kept_Tk = group_TN.topk(self.num_kept, dim=-1).indices
        dropped_TN = torch.ones_like(group_TN, dtype=torch.bool).scatter_(-1, kept_Tk, False)
        return scores_TNe.masked_fill(dropped_TN.unsqueeze(-1), excluded).view(scores_TE.shape)


@dataclass(frozen=True, slots=True)
class SoftmaxGate:
    """The K most probable experts, weighted by probability.

    Attributes:
        logits: float32 weights.
        renormalise: the K weights sum to 1, before scaling.
    """

    logits: LinearLayer
    num_chosen: int
    renormalise: bool = False
    scaling: float = 1.0
    groups: GroupLimit | None = None

    def __call__(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores_TE = self.logits(x_TD.float()).softmax(dim=-1)
        if self.groups is not None:
            scores_TE = self.groups(scores_TE, excluded=0.0)
        weights_TK, ids_TK = scores_TE.topk(self.num_chosen, dim=-1)
        if self.renormalise:
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        if self.scaling != 1.0:
            weights_TK = weights_TK * self.scaling
        return ids_TK, weights_TK


@dataclass(frozen=True, slots=True)
class SigmoidGate:
    """Sigmoid scores, chosen with a bias that balances load without a loss (DeepSeek-V3,
    arXiv:2412.19437); the bias decides who is chosen, never with what weight.

    Attributes:
        logits: float32 weights.
        correction_E: float32, added to the scores for choosing.
        renormalise: the K weights sum to 1, before scaling.
    """

    logits: LinearLayer
    correction_E: torch.Tensor
    num_chosen: int
    renormalise: bool = True
    scaling: float = 1.0
    groups: GroupLimit | None = None

    def __call__(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Not torch.sigmoid: on a CPU its last bit depends on where in a vector a number falls.
        scores_TE = torch.exp(-self.logits(x_TD.float())).add_(1).reciprocal_()
        choice_TE = scores_TE + self.correction_E
        if self.groups is not None:
            choice_TE = self.groups(choice_TE, excluded=float("-inf"))
        ids_TK = choice_TE.topk(self.num_chosen, dim=-1).indices
        weights_TK = scores_TE.gather(-1, ids_TK)
        if self.renormalise:
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return ids_TK, weights_TK * self.scaling
