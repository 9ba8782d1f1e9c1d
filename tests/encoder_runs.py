"""Inputs through an encoder's engine, and through transformers by itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from moe_serve.encoders.engine import EncoderEngine
from moe_serve.encoders.load import load_encoder
from moe_serve.types import Request, SamplingParams, ServedModel

Tokens = Sequence[Sequence[int]]


def load(
    path: Path,
    dtype: str = "float32",
    max_tokens_per_step: int = 256,
    max_live: int = 1000,
    **options: Any,
) -> tuple[EncoderEngine, ServedModel]:
    device = torch.device("cpu")
    return load_encoder(path, "small", dtype, device, max_tokens_per_step, max_live, **options)


def encode(
    engine: EncoderEngine, prompts: Tokens, second_starts: Sequence[int | None] = ()
) -> list["np.ndarray[Any, Any]"]:
    """What the engine makes of prompts that arrive together."""
    for index, prompt in enumerate(prompts):
        start = second_starts[index] if second_starts else None
        sampling = SamplingParams()
        engine.add(
            Request(
                request_id=str(index),
                prompt_ids=tuple(prompt),
                sampling=sampling,
                second_start=start,
            )
        )
    values = {}
    while engine.has_work:
        for event in engine.step():
            assert (event.finish_reason, event.index, event.token_id) == ("stop", 0, None)
            values[int(event.request_id)] = np.frombuffer(event.values, "<f4")
    return [values[index] for index in range(len(prompts))]


def plain(
    path: Path, family: str, head: str, dtype: torch.dtype = torch.float32
) -> "torch.nn.Module":
    """transformers' own module."""
    module: torch.nn.Module = getattr(transformers, family + head).from_pretrained(
        path, dtype=dtype
    )
    return module.eval()


@torch.no_grad()
def plain_vectors(
    module: Any, prompt: Sequence[int], second_start: int | None = None
) -> torch.Tensor:
    """The vectors of one prompt's tokens, float32 [L, D]; or its logits, [1, 1]."""
    ids_1L = torch.tensor([list(prompt)])
    more = {}
    if second_start is not None:
        more["token_type_ids"] = (torch.arange(len(prompt)) >= second_start).long()[None]
    output = module(input_ids=ids_1L, attention_mask=torch.ones_like(ids_1L), **more)
    return (output.logits if "logits" in output else output.last_hidden_state[0]).float()
