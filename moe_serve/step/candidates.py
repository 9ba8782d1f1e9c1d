"""Which tokens stay after top-k, top-p and min-p, and which of them a uniform number picks.

Every row is treated as if it were alone: equal logits are ordered by lowest id, and sums run along
a row in that order, so that a row's token never depends on the rows beside it.

Shape legend: S sampled rows, V vocabulary, C candidates.
"""

from collections.abc import Sequence

import torch

from moe_serve.types import SamplingParams

# Nearly always enough for top-p and min-p; the whole vocabulary is sorted where it is not.
_FIRST_TRY = 1024


def top_tokens(logits_SV: torch.Tensor, count: int) -> torch.Tensor:
    """Ids of the `count` largest logits, best first; equal logits by lowest id -> ids_SC."""
    if count == 0:
        return torch.empty(len(logits_SV), 0, dtype=torch.int64, device=logits_SV.device)
    values_SC, ids_SC = _best(logits_SV, count)
    # Where the last value has equals that were left out, others of them may be due.
    cut = (logits_SV >= values_SC[:, -1:]).sum(-1) > values_SC.shape[1]
    if bool(cut.any()):
        ids_SC[cut] = _best(logits_SV[cut], logits_SV.shape[1])[1][:, : ids_SC.shape[1]]
    return ids_SC


def pick(
    logits_SV: torch.Tensor, sampling: Sequence[SamplingParams], uniforms: Sequence[float]
) -> torch.Tensor:
    """One token per row: filtered by the row's parameters, drawn by its uniform -> ids_S."""
    filtered = [row for row, params in enumerate(sampling) if _filters(params)]
    plain = [row for row, params in enumerate(sampling) if not _filters(params)]
    chosen_S = torch.empty(len(sampling), dtype=torch.int64, device=logits_SV.device)
    for rows, draw in ((plain, _pick_plain), (filtered, _pick_filtered)):
        if rows:
            params = [sampling[row] for row in rows]
            uniform_S1 = _column([uniforms[row] for row in rows], logits_SV, torch.float64)
            temperature = _column([each.temperature for each in params], logits_SV, torch.float32)
            chosen_S[rows] = draw(logits_SV[rows] / temperature, params, uniform_S1)
    return chosen_S


def _filters(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def _pick_plain(
    logits_SV: torch.Tensor, sampling: Sequence[SamplingParams], uniform_S1: torch.Tensor
) -> torch.Tensor:
    return _draw(torch.softmax(logits_SV, dim=-1), uniform_S1)


def _pick_filtered(
    logits_SV: torch.Tensor, sampling: Sequence[SamplingParams], uniform_S1: torch.Tensor
) -> torch.Tensor:
    vocab_size = logits_SV.shape[1]
    probabilities_SV = torch.softmax(logits_SV, dim=-1)
    values_SC, ids_SC = _best(logits_SV, _FIRST_TRY)
    kept_SC = _filter(probabilities_SV.gather(1, ids_SC), sampling, vocab_size)
    chosen_S = ids_SC.gather(1, _draw(kept_SC, uniform_S1)[:, None])[:, 0]
    # A kept token as good as the last candidate may have equals, or successors, left out.
    wider = ((kept_SC > 0) & (values_SC == values_SC[:, -1:])).any(-1)
    wider |= torch.tensor([params.top_k > _FIRST_TRY for params in sampling], device=wider.device)
    if ids_SC.shape[1] < vocab_size and bool(wider.any()):
        rows = wider.nonzero()[:, 0].tolist()
        _, ids_SC = _best(logits_SV[rows], vocab_size)
        probabilities_SC = probabilities_SV[rows].gather(1, ids_SC)
        kept_SC = _filter(probabilities_SC, [sampling[row] for row in rows], vocab_size)
        chosen_S[rows] = ids_SC.gather(1, _draw(kept_SC, uniform_S1[rows])[:, None])[:, 0]
    return chosen_S


def _best(logits_SV: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids, best first, equals by lowest id; which of the last value's equals are
    among them is not defined, unless `count` is the whole vocabulary."""
    if count >= logits_SV.shape[1]:
        return logits_SV.sort(dim=-1, descending=True, stable=True)
    ids_SC = logits_SV.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
    values_SC, order_SC = logits_SV.gather(1, ids_SC).sort(dim=-1, descending=True, stable=True)
    return values_SC, ids_SC.gather(1, order_SC)


def _filter(
    best_SC: torch.Tensor, sampling: Sequence[SamplingParams], vocab_size: int
) -> torch.Tensor:
    """Zero the probabilities that top-k, then top-p, then min-p drop."""
    num_candidates = best_SC.shape[1]
    limits = [min(params.top_k or vocab_size, num_candidates) for params in sampling]
    limit_S1 = _column(limits, best_SC, torch.int64)
    mass_SC = best_SC.cumsum(-1, dtype=torch.float64)
    # Top-p is a share of what top-k left; without top-k, of everything.
    bounded_S1 = _column([params.top_k > 0 for params in sampling], best_SC, torch.bool)
    total_S1 = torch.where(bounded_S1, mass_SC.gather(1, limit_S1 - 1), 1.0)
    top_p_S1 = _column([params.top_p for params in sampling], best_SC, torch.float64)
    min_p_S1 = _column([params.min_p for params in sampling], best_SC, torch.float32)
    rank_C = torch.arange(num_candidates, device=best_SC.device)
    # The token that crosses the threshold is kept, as is always the first.
    keep = (mass_SC - best_SC < top_p_S1 * total_S1) | (rank_C == 0)
    keep &= (rank_C < limit_S1) & (best_SC >= best_SC[:, :1] * min_p_S1)
    return torch.where(keep, best_SC, 0.0)


def _draw(weights_SC: torch.Tensor, uniform_S1: torch.Tensor) -> torch.Tensor:
    """Index of the first entry whose running sum exceeds the uniform share of the row's sum."""
    running_SC = weights_SC.cumsum(-1, dtype=torch.float64)
    index_S = torch.searchsorted(running_SC, uniform_S1 * running_SC[:, -1:], right=True)[:, 0]
    # Rounding may point past the last entry that has any weight.
    last_S = weights_SC.shape[1] - 1 - (weights_SC > 0).flip(-1).int().argmax(-1)
    return torch.minimum(index_S, last_S)


def _column(values: Sequence[float], like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
