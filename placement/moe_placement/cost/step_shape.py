"""What one step of a worker computes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepShape:
    """Tokens of one step over all attention groups of one worker together.

    Attributes:
        prefill_tokens: prompt tokens computed in this step.
        prefill_context: tokens that each of them attends to, in the mean.
        decode_sequences: sequences that decode in this step.
        decode_context: tokens in the cache of each of them, in the mean.
        decode_tokens_per_sequence: more than 1 with speculation, which verifies several.
        prefill_imbalance: prompt tokens of the fullest attention group over the mean of all.
    """

    prefill_tokens: float = 0.0
    prefill_context: float = 0.0
    decode_sequences: float = 0.0
    decode_context: float = 0.0
    decode_tokens_per_sequence: float = 1.0
    prefill_imbalance: float = 1.0

    @property
    def num_tokens(self) -> float:
        return self.prefill_tokens + self.decode_sequences * self.decode_tokens_per_sequence
