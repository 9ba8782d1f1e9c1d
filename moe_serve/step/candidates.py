"""Which tokens stay after top-k, top-p and min-p, and which of them a uniform number picks.

Shape legend: S sampled rows, V vocabulary, C candidates.
"""

from collections.abc import Sequence

import torch

from moe_serve.types import SamplingParams

_FIRST_TRY = 1024


def top_tokens(logits_SV: torch.Tensor, count: int) -> torch.Tensor:
    """Ids of the `count` largest logits, best first; equal logits by lowest id -> ids_SC.

    Floats are mapped to integers of the same order with the id in the low bits, so that the
    order is total and does not depend on how many are asked for.
    """
    vocab_size = logits_SV.shape[-1]
    bits = (logits_SV + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    ids = torch.arange(vocab_size, device=logits_SV.device)
    keys = ordered * (1 << 31) + (vocab_size - 1 - ids)
    return keys.topk(min(count, vocab_size), dim=-1).indices


def pick(
    logits_SV: torch.Tensor, sampling: Sequence[SamplingParams], uniforms: Sequence[float]
) -> torch.Tensor:
    """One token per row: filtered by the row's parameters, drawn by its uniform -> ids_S."""
    temperature = _column([params.temperature for params in sampling], logits_SV)
    probabilities = torch.softmax(logits_SV / temperature, dim=-1, dtype=torch.float64)
    uniform = _column(uniforms, probabilities)
    limits = [params.top_k or logits_SV.shape[-1] for params in sampling]
    filtered = any(params.top_k or params.top_p < 1.0 or params.min_p > 0.0 for params in sampling)
    if not filtered:
        return _inverse_distribution(probabilities, uniform)
    for count in (max(min(max(limits), _FIRST_TRY), 1), logits_SV.shape[-1]):
        ids = top_tokens(logits_SV, count)
        best = probabilities.gather(1, ids)
        kept, complete = _filter(best, sampling, limits)
        if complete:
            break
    return ids.gather(1, _inverse_distribution(kept, uniform)[:, None])[:, 0]


def _filter(
    best_SC: torch.Tensor, sampling: Sequence[SamplingParams], limits: Sequence[int]
) -> tuple[torch.Tensor, bool]:
    """Zero what top-k, top-p and min-p drop; False if candidates beyond C might be kept."""
    rank = torch.arange(best_SC.shape[1], device=best_SC.device)
    mass = best_SC.cumsum(-1)
    keep = rank < torch.tensor(limits, device=best_SC.device)[:, None]
    top_k_mass = torch.where(keep, best_SC, 0.0).sum(-1, keepdim=True)
    top_p = _column([params.top_p for params in sampling], best_SC)
    bounded = torch.tensor([params.top_k > 0 for params in sampling], device=best_SC.device)
    total = torch.where(bounded[:, None], top_k_mass, 1.0)
    # The token that crosses the threshold is kept, as is always the first.
    keep &= (mass - best_SC < top_p * total) | (rank == 0)
    keep &= best_SC >= best_SC[:, :1] * _column([params.min_p for params in sampling], best_SC)
    exhausted = torch.tensor(limits, device=best_SC.device) <= len(rank)
    complete = bool((exhausted | ~keep[:, -1]).all())
    return torch.where(keep, best_SC, 0.0), complete


def _inverse_distribution(weights_SC: torch.Tensor, uniform_S1: torch.Tensor) -> torch.Tensor:
    """Index of the first entry whose running sum exceeds the uniform share of the row's sum."""
    running = weights_SC.cumsum(-1)
    index = torch.searchsorted(running, uniform_S1 * running[:, -1:], right=True)[:, 0]
    last = (weights_SC > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(index, last)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
