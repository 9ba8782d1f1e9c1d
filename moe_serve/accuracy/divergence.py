"""How far one model's next-token distributions are from another's.

Shape legend: T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moe_serve.errors import BringUpError

# Positions are compared so many at a time, to bound what float64 copies take.
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Divergence:
    """Kullback-Leibler divergence of the served distributions from the reference's.

    Attributes:
        mean, largest: over all positions of all prompts; nats per token.
    """

    mean: float
    largest: float


def divergence(reference: Sequence[torch.Tensor], served: Sequence[torch.Tensor]) -> Divergence:
    """KL(reference || served) of softmax, at every position of every prompt.

    Args:
        reference, served: logits_TV of each prompt, on the host. A served logit that is not
            finite makes the divergence infinite.
    """
    found_T = torch.cat(
        [_divergence(ours, theirs) for theirs, ours in zip(reference, served, strict=True)]
    )
    return Divergence(float(found_T.mean()), float(found_T.max()))


def require_accurate(found: Divergence, max_kl: float) -> None:
    """
    Raises:
        BringUpError: the mean is above `max_kl`. Not the largest: one token that goes to another
            of two experts with nearly the same score is far off, in any format but float32.
    """
    # Not `>`, which no NaN is.
    if not found.mean <= max_kl:
        raise BringUpError(
            f"accuracy: the served model differs from its float32 reference by {found.mean:.3g} "
            f"nats per token ({found.largest:.3g} at most), {max_kl:g} is the most allowed "
            "(accuracy.max_kl); use a wider weight format or wire"
        )


def _divergence(served_TV: torch.Tensor, reference_TV: torch.Tensor) -> torch.Tensor:
    assert served_TV.shape == reference_TV.shape
    blocks = zip(*(torch.split(x, _BLOCK) for x in (reference_TV, served_TV)), strict=True)
    found_T = torch.cat([_of_block(theirs.double(), ours.double()) for theirs, ours in blocks])
    return found_T.masked_fill_(~served_TV.isfinite().all(1), torch.inf)


def _of_block(reference_TV: torch.Tensor, served_TV: torch.Tensor) -> torch.Tensor:
    reference_TV, served_TV = (x.log_softmax(-1) for x in (reference_TV, served_TV))
    terms_TV = reference_TV.exp() * (reference_TV - served_TV)
    # Below zero by rounding alone.
    return terms_TV.sum(-1).clamp_(min=0)
