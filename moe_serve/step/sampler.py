"""From logits to tokens, all sequences of a step at once.

Shape legend: S sampled rows, V vocabulary.
"""

from collections.abc import Sequence

import torch

from moe_serve.step.candidates import pick, top_tokens
from moe_serve.step.penalties import (
    LogitBias,
    TokenHistory,
    apply_logit_bias,
    apply_penalties,
    wants_history,
)
from moe_serve.step.random import uniform
from moe_serve.types import Request, SampledToken, SamplingParams, StepOutput


class _State:
    """What the sampler remembers of one live request.

    Attributes:
        history, bias: made at the first sample, so that a queued request holds no tensors.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sampling = request.sampling
        self.seed = request.sampling.seed or 0
        self.num_sampled = len(request.generated_ids)
        self._is_prepared = False
        self.history: TokenHistory | None = None
        self.bias: LogitBias | None = None

    def prepare(self, vocab_size: int, device: torch.device) -> None:
        if self._is_prepared:
            return
        self._is_prepared = True
        if wants_history(self.sampling):
            self.history = TokenHistory(self.request, vocab_size, device)
        if self.sampling.logit_bias:
            self.bias = LogitBias(self.sampling, device)


class Sampler:
    """Chooses each sequence's next token; requests are added before their first step."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._states: dict[str, _State] = {}

    def add(self, request: Request) -> None:
        self._states[request.request_id] = _State(request)

    @property
    def live(self) -> tuple[str, ...]:
        return tuple(self._states)

    def forget(self, request_id: str) -> None:
        self._states.pop(request_id, None)

    @torch.inference_mode()
    def sample(self, request_ids: Sequence[str], logits_SV: torch.Tensor) -> StepOutput:
        """
        Args:
            request_ids: of each row.
            logits_SV: float32; changed in place.
        """
        if not request_ids:
            return StepOutput()
        states = [self._states[request_id] for request_id in request_ids]
        raw_SV = logits_SV
        if any(state.sampling.logprobs is not None for state in states):
            raw_SV = logits_SV.clone()
        self._adjust(states, logits_SV)
        token_ids = _choose(states, logits_SV)
        for state, token_id in zip(states, token_ids, strict=True):
            state.num_sampled += 1
            if state.history is not None:
                state.history.add(token_id)
        logprobs = _logprobs([state.sampling for state in states], raw_SV, token_ids)
        return StepOutput(
            tuple(
                SampledToken(request_id, token_id, *logprobs.get(row, (None, ())))
                for row, (request_id, token_id) in enumerate(
                    zip(request_ids, token_ids, strict=True)
                )
            )
        )

    def _adjust(self, states: list[_State], logits_SV: torch.Tensor) -> None:
        for state in states:
            state.prepare(self._vocab_size, self._device)
        biases = {row: state.bias for row, state in enumerate(states) if state.bias}
        if biases:
            apply_logit_bias(logits_SV, list(biases), list(biases.values()))
        histories = {row: state.history for row, state in enumerate(states) if state.history}
        if histories:
            apply_penalties(logits_SV, list(histories), list(histories.values()))


def _choose(states: list[_State], logits_SV: torch.Tensor) -> list[int]:
    drawn = [row for row, state in enumerate(states) if state.sampling.temperature > 0.0]
    token_ids: list[int] = logits_SV.argmax(-1).tolist()
    if drawn:
        chosen = pick(
            logits_SV[drawn],
            [states[row].sampling for row in drawn],
            [uniform(states[row].seed, states[row].num_sampled) for row in drawn],
        )
        for row, token_id in zip(drawn, chosen.tolist(), strict=True):
            token_ids[row] = token_id
    return token_ids


def _logprobs(
    sampling: list[SamplingParams], logits_SV: torch.Tensor, token_ids: list[int]
) -> dict[int, tuple[float, tuple[tuple[int, float], ...]]]:
    """Log-probabilities under the model's own distribution, for the rows that want them."""
    wanted = {row: params.logprobs for row, params in enumerate(sampling)}
    rows = [row for row, count in wanted.items() if count is not None]
    if not rows:
        return {}
    logprobs = torch.log_softmax(logits_SV[rows], dim=-1)
    best = top_tokens(logits_SV[rows], max(wanted[row] or 0 for row in rows))
    best_values = logprobs.gather(1, best).tolist()
    chosen = torch.tensor([token_ids[row] for row in rows], device=logits_SV.device)
    own = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
    return {
        row: (value, tuple(zip(ids, values, strict=True))[: wanted[row] or 0])
        for row, value, ids, values in zip(rows, own, best.tolist(), best_values, strict=True)
    }
