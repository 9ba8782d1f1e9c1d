"""What bounds one worker's batch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLimits:
    """Limits of one worker, all its attention groups together.

    Attributes:
        max_tokens_per_step: prompt tokens that one step computes at most; longer prompts are
            chunked.
        max_sequences: requests under way at most.
        kv_tokens: tokens that the caches hold together.
        num_groups: attention groups; a prompt is computed in one of them.
    """

    max_tokens_per_step: float = 8192.0
    max_sequences: float = 1024.0
    kv_tokens: float = 1e9
    num_groups: float = 1.0

    def sequences(self, tokens_each: float) -> float:
        """Requests under way at most, each holding so many tokens in the mean."""
        return _least(self.max_sequences, self.kv_tokens / tokens_each)


def _least(first: float, second: float) -> float:
    return (first + second - abs(first - second)) / 2
