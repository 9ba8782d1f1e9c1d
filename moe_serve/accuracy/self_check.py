"""The self-check of one EP group before it serves: served logits beside the checkpoint's own."""

import numpy as np
import torch
from moe_comm.transport.exchange import Exchange

from moe_serve.accuracy.divergence import Divergence, divergence, require_accurate
from moe_serve.accuracy.reference import reference_logits
from moe_serve.accuracy.served import Prompts, Run, follow, served_logits
from moe_serve.control.meeting.together import together
from moe_serve.weights.checkpoint import Checkpoint


def self_check(
    ranks: Exchange,
    checkpoint: Checkpoint,
    run: Run,
    prompts: Prompts,
    page_size: int,
    has_tokens: bool,
    max_kl: float,
) -> Divergence | None:
    """Compare; every rank of the EP group calls it, with the same prompts and limit.

    The first rank computes the reference, reading the checkpoint once more; the others wait.

    Args:
        run: one step of this rank.
        has_tokens: this rank leads its attention; the others take part and compare nothing.

    Returns:
        What this rank found; None without tokens.

    Raises:
        AgreedError: a rank found more than `max_kl`, or could not read; the same on every rank.
    """
    served: tuple[torch.Tensor, ...] = ()
    if has_tokens:
        served = served_logits(run, prompts, page_size)
    else:
        follow(run, prompts)
    own = together(ranks, lambda: reference_logits(checkpoint, prompts) if not ranks.rank else ())
    reference = _from_first(ranks, own, prompts)
    found = divergence(reference, served) if has_tokens else None
    together(ranks, lambda: require_accurate(found, max_kl) if found else None)
    return found


def _from_first(
    ranks: Exchange, own: tuple[torch.Tensor, ...], prompts: Prompts
) -> tuple[torch.Tensor, ...]:
    """The first rank's logits, on every rank."""
    data = b"" if ranks.rank else torch.stack(own).numpy().tobytes()
    numbers = np.frombuffer(ranks.allgather_bytes(data)[0], np.float32).copy()
    return torch.from_numpy(numbers).view(len(prompts), len(prompts[0]), -1).unbind(0)
