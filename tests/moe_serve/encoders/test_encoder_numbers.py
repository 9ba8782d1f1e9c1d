"""What an encoder's engine computes, beside transformers by itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from encoder_checkpoints import FAMILIES
from encoder_runs import encode, load, plain, plain_vectors
from quick import quick_among

from moe_serve.encoders.encoder import Encoder, Inputs, make_encoder
from moe_serve.encoders.families import EncoderFamily

Prompts = list[list[int]]
TYPED = ("Albert", "Bert", "Electra", "NomicBert")


def means(path: Path, family: str, head: str, prompts: Prompts) -> list["np.ndarray[Any, Any]"]:
    module = plain(path, family, head)
    return [plain_vectors(module, prompt).mean(0).numpy() for prompt in prompts]


def largest_difference(found: Any, expected: Any) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))


def test_every_family_is_tried() -> None:
    assert set(get_args(EncoderFamily)) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_transformers(
    family: str, encoder_checkpoint: Callable[..., Path], prompts: Prompts
) -> None:
    path = encoder_checkpoint(family)
    engine, served = load(path)
    found = encode(engine, prompts)
    assert largest_difference(found, means(path, family, "Model", prompts)) < 1e-5
    alone = [encode(engine, [prompt])[0] for prompt in prompts]
    assert largest_difference(found, alone) < 1e-5
    assert (served.task, served.embedding_width, served.context_length) == ("embed", 32, 48)
    # Vectors that hardly differ would hide a mistake.
    assert np.linalg.norm(found[3] - found[4]) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(
    family: str, encoder_checkpoint: Callable[..., Path], prompts: Prompts
) -> None:
    head = "ForSequenceClassification"
    path = encoder_checkpoint(family, head)
    engine, served = load(path)
    starts = [max(1, len(prompt) // 2) for prompt in prompts]
    found = encode(engine, prompts, starts)
    module = plain(path, family, head)
    typed = starts if family in TYPED else [None] * len(prompts)
    logits = [plain_vectors(module, *each) for each in zip(prompts, typed, strict=True)]
    expected = [logit.sigmoid().flatten().numpy() for logit in logits]
    assert largest_difference(found, expected) < 1e-5
    assert (served.task, served.embedding_width) == ("rerank", 0)
    assert np.ptp([score[0] for score in found]) > 0.01


@pytest.mark.parametrize("family", quick_among(FAMILIES, ("Bert", "MPNet")))
def test_a_pretraining_head_is_left_out(
    family: str, encoder_checkpoint: Callable[..., Path], prompts: Prompts
) -> None:
    path = encoder_checkpoint(family, "ForMaskedLM")
    found = encode(load(path)[0], prompts)
    assert largest_difference(found, means(path, family, "Model", prompts)) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_narrower_weights(
    dtype: str, bound: float, encoder_checkpoint: Callable[..., Path], prompts: Prompts
) -> None:
    path = encoder_checkpoint(dtype=getattr(torch, dtype))
    found = encode(load(path, dtype)[0], prompts)
    module = plain(path, "Bert", "Model", getattr(torch, dtype))
    expected = [plain_vectors(module, prompt).mean(0).numpy() for prompt in prompts]
    assert largest_difference(found, expected) < bound
    # In float32 from the same weights: only the rounding of the activations is between them.
    assert 1e-5 < largest_difference(found, means(path, "Bert", "Model", prompts)) < 2 * bound


def faulty(change: Callable[[Inputs], Inputs], encoder: Encoder, requests: Any) -> torch.Tensor:
    return encoder.run(change(encoder.inputs(requests)))


def test_planted_faults_change_the_numbers(
    encoder_checkpoint: Callable[..., Path], prompts: Prompts, ask: Callable[..., Any]
) -> None:
    path = encoder_checkpoint("Bert", "ForSequenceClassification")
    encoder = make_encoder(path, "rerank", torch.float32, torch.device("cpu"))
    requests = [ask("", prompt, len(prompt) // 2) for prompt in prompts if len(prompt) > 1]
    right_B1 = faulty(lambda inputs: inputs, encoder, requests)

    def padding_is_seen(inputs: Inputs) -> Inputs:
        longest = torch.full_like(inputs.lengths_B, inputs.ids_BL.shape[1])
        return replace(inputs, lengths_B=longest)

    def types_are_lost(inputs: Inputs) -> Inputs:
        return replace(inputs, types_BL=None)

    for fault in (padding_is_seen, types_are_lost):
        assert (faulty(fault, encoder, requests) - right_B1).abs().max() > 1e-3
