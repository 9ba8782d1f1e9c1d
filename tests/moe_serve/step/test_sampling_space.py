"""Sampling stays within what the planner prices for each logit."""

import pytest
import torch
from held_bytes import PeakBytes
from moe_placement.memory.working_space import LOGIT_BYTES

from moe_serve.step.sampler import Sampler
from moe_serve.types import Request, SamplingParams

NUM_ROWS, VOCAB_SIZE = 8, 1 << 15
# The logits as the model's head gives them, and in float32.
GIVEN_BYTES = 4


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=50.0, top_p=0.999, min_p=1e-9),
        SamplingParams(temperature=50.0, top_p=0.999, frequency_penalty=0.5, logprobs=5),
        SamplingParams(temperature=0.0, repetition_penalty=1.2, logprobs=20),
    ],
)
def test_choosing_tokens_is_priced(sampling: SamplingParams) -> None:
    sampler = Sampler(VOCAB_SIZE, torch.device("cpu"))
    names = [str(row) for row in range(NUM_ROWS)]
    for name in names:
        sampler.add(Request(request_id=name, prompt_ids=(1, 2, 3), sampling=sampling))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(NUM_ROWS, VOCAB_SIZE, generator=generator)
    with PeakBytes() as held:
        sampler.sample(names, logits)
    assert 0 < held.peak <= NUM_ROWS * VOCAB_SIZE * (LOGIT_BYTES - GIVEN_BYTES)
