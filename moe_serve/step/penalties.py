"""Logit changes that depend on a sequence's own tokens, and logit bias.

Shape legend: S sampled rows, V vocabulary.
"""

import torch

from moe_serve.types import Request, SamplingParams


def wants_history(sampling: SamplingParams) -> bool:
    return (
        sampling.repetition_penalty != 1.0
        or sampling.presence_penalty != 0.0
        or sampling.frequency_penalty != 0.0
    )


class TokenHistory:
    """How often each token occurs in one sequence's answer, and whether in its prompt.

    Attributes:
        counts_V: int32, in the answer so far.
        prompt_V: bool.
    """

    def __init__(self, request: Request, vocab_size: int, device: torch.device) -> None:
        self.sampling = request.sampling
        self.counts_V = torch.zeros(vocab_size, dtype=torch.int32, device=device)
        self.prompt_V = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.prompt_V[torch.tensor(request.prompt_ids, device=device)] = True
        for token_id in request.generated_ids:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        self.counts_V[token_id] += 1


def apply_penalties(
    logits_SV: torch.Tensor, rows: list[int], histories: list[TokenHistory]
) -> None:
    """Change the named rows in place.

    Repetition divides positive and multiplies negative logits of every token seen (Keskar et
    al. 2019); presence and frequency subtract for tokens of the answer, as OpenAI defines them.
    """

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits_SV.device)[:, None]

    sampling = [history.sampling for history in histories]
    counts = torch.stack([history.counts_V for history in histories])
    seen = torch.stack([history.prompt_V for history in histories]) | (counts > 0)
    chosen = logits_SV[rows]
    repetition = column([params.repetition_penalty for params in sampling])
    scaled = torch.where(chosen > 0, chosen / repetition, chosen * repetition)
    chosen = torch.where(seen, scaled, chosen)
    chosen -= column([params.presence_penalty for params in sampling]) * (counts > 0)
    chosen -= column([params.frequency_penalty for params in sampling]) * counts
    logits_SV[rows] = chosen


class LogitBias:
    """One request's bias, as tensors made once."""

    def __init__(self, sampling: SamplingParams, device: torch.device) -> None:
        ids, values = zip(*sampling.logit_bias, strict=True)
        self.ids = torch.tensor(ids, device=device)
        self.values = torch.tensor(values, dtype=torch.float32, device=device)


def apply_logit_bias(logits_SV: torch.Tensor, rows: list[int], biases: list[LogitBias]) -> None:
    """Add each named row's bias in place."""
    lengths = torch.tensor([len(bias.ids) for bias in biases], device=logits_SV.device)
    row_ids = torch.tensor(rows, device=logits_SV.device).repeat_interleave(lengths)
    token_ids = torch.cat([bias.ids for bias in biases])
    values = torch.cat([bias.values for bias in biases])
    logits_SV.index_put_((row_ids, token_ids), values, accumulate=True)
