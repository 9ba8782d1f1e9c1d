"""What an encoder's files say of its memory, beside what it takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_checkpoints import FAMILIES
from encoder_runs import load
from held_bytes import held_bytes
from quick import quick_among
from torch.profiler import ProfilerActivity, profile

from moe_serve.encoders.encoder import Encoder, make_encoder
from moe_serve.encoders.families import encoder_task
from moe_serve.encoders.memory import encoder_bytes
from moe_serve.types import Request
from moe_serve.weights.config_files import read_config

Checkpoint = Callable[..., Path]
Ask = Callable[..., Request]
TOKENS = 512
LENGTH = 128


def peak_bytes(encoder: Encoder, requests: list[Request]) -> int:
    """The most bytes alive at once of all that torch allocates, inside its operators too."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        encoder.run(encoder.inputs(requests))
    events = [each for each in run.profiler.kineto_results.events() if each.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def made(family: str, head: str, encoder_checkpoint: Checkpoint) -> Path:
    further = {"num_key_value_heads": 4} if family == "EuroBert" else {}
    if family == "DistilBert":
        further |= {"dim": 64, "hidden_dim": 256}
    positions = LENGTH + 2 if family in ("Camembert", "MPNet", "Roberta", "XLMRoberta") else LENGTH
    return encoder_checkpoint(
        family,
        head,
        hidden_size=64,
        intermediate_size=256,
        max_position_embeddings=positions,
        **further,
    )


EVERY = [
    (family, head) for family in FAMILIES for head in ("ForMaskedLM", "ForSequenceClassification")
]
# Each kind of layers and attention once.
QUICK = (
    ("Albert", "ForMaskedLM"),
    ("Bert", "ForMaskedLM"),
    ("Gte", "ForSequenceClassification"),
    ("ModernBert", "ForMaskedLM"),
    ("MPNet", "ForSequenceClassification"),
)


@pytest.mark.parametrize(("family", "head"), quick_among(EVERY, QUICK))
def test_weights_and_working_space(
    family: str, head: str, encoder_checkpoint: Checkpoint, ask: Ask
) -> None:
    path = made(family, head, encoder_checkpoint)
    dtype = torch.bfloat16 if family in ("Bert", "ModernBert") else torch.float32
    weights, working_space = encoder_bytes(path, str(dtype).removeprefix("torch."), TOKENS)
    encoder = make_encoder(path, encoder_task(read_config(path)), dtype, torch.device("cpu"))
    held = held_bytes([*encoder.module.parameters()])
    assert 0.98 * weights <= held <= weights
    peaks = []
    for length in (LENGTH, 16, 1):
        requests = [ask("", [5] * max(1, length - index % 2)) for index in range(TOKENS // length)]
        encoder.run(encoder.inputs(requests))
        peaks.append(peak_bytes(encoder, requests))
    buffers = held_bytes([*encoder.module.buffers()])
    assert max(peaks) + buffers <= working_space < 3 * max(peaks)


def test_the_largest_step_may_be_one_long_input(encoder_checkpoint: Checkpoint) -> None:
    path = encoder_checkpoint()
    small, equal, larger = (encoder_bytes(path, "float32", tokens)[1] for tokens in (1, 48, 96))
    assert small == equal < larger
    assert encoder_bytes(path, "float32", 1, max_context=24)[1] < small
    assert encoder_bytes(path, "bfloat16", 48)[0] * 2 == encoder_bytes(path, "float32", 48)[0]


def test_weights_are_in_memory_of_their_own(encoder_checkpoint: Checkpoint) -> None:
    path = encoder_checkpoint(seed=7)
    _engine = load(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
