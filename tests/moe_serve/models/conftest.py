"""A model driven step by step over a paged cache, as the engine does, every choice open."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_kernels.table import select_ops

from moe_serve.layers.context import ForwardContext
from moe_serve.models.model import Model
from moe_serve.models.registry import build_model, describe
from moe_serve.step.cache import allocate_cache
from moe_serve.step.inputs import build_inputs
from moe_serve.types import Batch, Chunk
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

CPU = torch.device("cpu")
NUM_TOKENS_CACHED = 1024


class Decoder:
    """Greedy decoding of several sequences at once; keeps the logits of every position.

    Attributes:
        model: replaced by tests that plant a fault.
        before_step: called with the index of each step.
    """

    def __init__(
        self,
        path: Path,
        page_size: int = 16,
        dtype: torch.dtype = torch.float32,
        deterministic: bool = False,
    ) -> None:
        checkpoint = Checkpoint.open(path)
        self.shape = describe(checkpoint.config)
        experts = list(range(self.shape.num_experts))
        self.ops = select_ops("cpu", str(dtype).removeprefix("torch."), deterministic)
        loader = WeightLoader(
            checkpoint, self.ops, CPU, dtype, dict.fromkeys(self.shape.moe_layers, experts)
        )
        self.model: Callable[[ForwardContext], torch.Tensor] | Model = build_model(
            checkpoint.config, loader
        )
        self.dispatcher: Any = LocalDispatcher(
            {
                layer: RoutingTable(layer, [experts], [[1.0] * len(experts)], len(experts))
                for layer in self.shape.moe_layers
            }
        )
        self.page_size = page_size
        num_pages = NUM_TOKENS_CACHED // page_size
        self.caches = allocate_cache(self.shape.cache_specs, num_pages, page_size, dtype, CPU)
        self.free_pages = list(range(num_pages))
        random.Random(0).shuffle(self.free_pages)
        self.before_step: Callable[[int], None] = lambda step: None

    @torch.inference_mode()
    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits of every token of the batch."""
        inputs = build_inputs(batch, self.page_size, CPU)
        context = ForwardContext(
            token_ids_T=inputs.token_ids_T,
            position_T=inputs.position_T,
            keys_T=inputs.keys_T,
            sample_S=torch.arange(len(inputs.token_ids_T)),
            paged=inputs.paged,
            caches=self.caches,
            dispatcher=self.dispatcher,
            ops=self.ops,
        )
        return self.model(context)

    def generate(
        self, prompts: Sequence[Sequence[int]], num_new_tokens: int, chunk: int
    ) -> tuple[list[list[int]], list[torch.Tensor]]:
        """New tokens of each prompt, and its logits at all positions but the last token's.

        Each step takes up to `chunk` tokens of each sequence, so that short prompts decode while
        long ones are still read.
        """
        sequences = [_Sequence(list(prompt), num_new_tokens) for prompt in prompts]
        for step in range(10_000):
            live = [sequence for sequence in sequences if not sequence.done]
            if not live:
                break
            self.before_step(step)
            chunks = [self._chunk(sequence, chunk) for sequence in live]
            logits = self.forward(Batch(tuple(chunks))).split([len(c.token_ids) for c in chunks])
            for sequence, rows in zip(live, logits, strict=True):
                sequence.take(rows)
        return (
            [sequence.ids[sequence.num_prompt :] for sequence in sequences],
            [torch.cat(sequence.logits) for sequence in sequences],
        )

    def _chunk(self, sequence: "_Sequence", size: int) -> Chunk:
        ids = tuple(sequence.ids[sequence.num_cached : sequence.num_cached + size])
        end = sequence.num_cached + len(ids)
        while len(sequence.pages) * self.page_size < end:
            sequence.pages.append(self.free_pages.pop())
        return Chunk("", sequence.num_cached, ids, tuple(sequence.pages), end == len(sequence.ids))


class _Sequence:
    def __init__(self, ids: list[int], num_new_tokens: int) -> None:
        self.ids = ids
        self.num_prompt = len(ids)
        self.length = len(ids) + num_new_tokens
        self.num_cached = 0
        self.pages: list[int] = []
        self.logits: list[torch.Tensor] = []

    @property
    def done(self) -> bool:
        return len(self.ids) == self.length

    def take(self, logits: torch.Tensor) -> None:
        self.num_cached += len(logits)
        self.logits.append(logits)
        if self.num_cached == len(self.ids):
            self.ids.append(int(logits[-1].argmax()))


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Decoder]:
    return Decoder


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Of lengths that end within, at and after a page, and beyond YaRN's original context."""
    draw = random.Random(7)
    return [[draw.randrange(3, 384) for _ in range(length)] for length in (1, 7, 32, 75)]


@pytest.fixture(scope="session")
def replay() -> Callable[[Path, Sequence[Sequence[int]]], list[torch.Tensor]]:
    """transformers' logits at every position of each sequence, in one pass."""

    @torch.no_grad()
    def run(path: Path, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        from oracle import load_oracle

        model = load_oracle(path)
        return [model(torch.tensor([list(ids)])).logits[0] for ids in sequences]

    return run
