"""From a checkpoint directory to the engine that serves its encoder."""

import time
from pathlib import Path

import torch

from moe_serve.encoders.cost import StepCost
from moe_serve.encoders.encoder import Encoder, make_encoder
from moe_serve.encoders.engine import EncoderEngine
from moe_serve.encoders.families import encoder_task
from moe_serve.encoders.shape import read_shape
from moe_serve.errors import CheckpointError
from moe_serve.types import Request, SamplingParams, ServedModel
from moe_serve.weights.config_files import read_config


def load_encoder(
    path: Path | str,
    name: str,
    dtype: str,
    device: torch.device,
    max_tokens_per_step: int,
    max_live: int,
    *,
    plan_rank: int = 0,
    max_context: int = 0,
) -> tuple[EncoderEngine, ServedModel]:
    """Read a model that embeds or reranks, and make its engine.

    Args:
        name: what requests call the model.
        dtype: of weights and activations: float32, bfloat16 or float16.
        max_tokens_per_step: padding included.
        max_live: requests that may wait.
        plan_rank: for statistics.
        max_context: the most tokens of an input; 0 is the model's own.

    Raises:
        CheckpointError: a file, a field or a tensor is missing or damaged.
        UnsupportedError: a model, or a part of it, that is not computed here.
        ConfigError: a `max_context` beyond the model's own.
    """
    path = Path(path)
    task, shape = encoder_task(read_config(path)), read_shape(path, max_context)
    encoder = make_encoder(path, task, getattr(torch, dtype), device)
    cost = StepCost(_least_seconds(encoder, path))
    engine = EncoderEngine(plan_rank, encoder, shape, cost, max_tokens_per_step, max_live)
    served = ServedModel(
        name=name,
        path=str(path),
        context_length=shape.context_length,
        vocab_size=shape.vocab_size,
        end_token_ids=(),
        task=task,
        embedding_width=shape.width if task == "embed" else 0,
    )
    return engine, served


def _least_seconds(encoder: Encoder, path: Path) -> float:
    """Of the smallest step; a process's first one is no measure."""
    try:
        return min(_step_seconds(encoder) for _ in range(3))
    except Exception as error:
        # What fits the weights need not fit together.
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"transformers cannot compute {path}: {why}") from error


def _step_seconds(encoder: Encoder) -> float:
    smallest = Request(request_id="", prompt_ids=(0,), sampling=SamplingParams())
    started = time.perf_counter()
    encoder.run(encoder.inputs([smallest]))
    return time.perf_counter() - started
