"""A request that goes on on another rank draws what it would have drawn on its own."""

import pytest
import torch

from moe_serve.step.sampler import Sampler
from moe_serve.types import Request, SamplingParams

VOCABULARY = 32
NUM_STEPS = 12


@pytest.mark.parametrize("num_before", [1, 5, NUM_STEPS - 1])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(seed=3),
        SamplingParams(seed=3, frequency_penalty=1.5, presence_penalty=0.5),
        SamplingParams(temperature=0.0, repetition_penalty=1.8, logit_bias=((4, 2.0),)),
    ],
)
def test_it_goes_on(sampling: SamplingParams, num_before: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_SV = torch.randn(NUM_STEPS, VOCABULARY, generator=generator)

    def draw(generated_ids: tuple[int, ...]) -> list[int]:
        sampler = Sampler(VOCABULARY, torch.device("cpu"))
        request = Request(
            request_id="a", prompt_ids=(1, 2), sampling=sampling, generated_ids=generated_ids
        )
        sampler.add(request)
        rest = logits_SV[len(generated_ids) :].clone()
        return [sampler.sample(["a"], row_V[None]).tokens[0].token_id for row_V in rest]

    whole = draw(())
    assert draw(tuple(whole[:num_before])) == whole[num_before:]
