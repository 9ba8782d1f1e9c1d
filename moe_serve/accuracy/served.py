"""The served model's logits at every position of some prompts, by the steps that serve.

Shape legend: S prompts, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from moe_serve.types import Batch, Chunk

NUM_PROMPTS = 4
PROMPT_TOKENS = 32

Run = Callable[[Batch], torch.Tensor]
Prompts = Sequence[Sequence[int]]


def check_prompts(vocab_size: int, num_pages: int, page_size: int) -> tuple[tuple[int, ...], ...]:
    """Random tokens, the same on every rank that asks alike: as many as the cache has room for.

    Args:
        num_pages: the fewest that any rank with tokens has; at least 1.
    """
    length = min(PROMPT_TOKENS, num_pages * page_size)
    count = min(NUM_PROMPTS, num_pages // -(-length // page_size))
    drawn = np.random.default_rng(0).integers(vocab_size, size=(count, length))
    return tuple(tuple(row) for row in drawn.tolist())


def served_logits(run: Run, prompts: Prompts, page_size: int) -> tuple[torch.Tensor, ...]:
    """Next-token logits_TV at every position of each prompt, on the host.

    One token of each prompt is computed in each step, as in decoding, so that there are as many
    steps as a prompt has tokens. Every rank of the EP group runs as many: those that have no
    tokens of their own call `follow`. The cache's first pages are written over.

    Args:
        run: one step, as `Runner.run` takes it.
        prompts: of one length.
    """
    steps = [run(batch).float().cpu() for batch in _steps(prompts, page_size)]
    return torch.stack(steps).unbind(1)


def follow(run: Run, prompts: Prompts) -> None:
    """Take part in the others' `served_logits` with no tokens."""
    for _ in prompts[0]:
        run(Batch())


def _steps(prompts: Prompts, page_size: int) -> Iterator[Batch]:
    num_pages = -(-len(prompts[0]) // page_size)
    pages = [
        tuple(range(number * num_pages, (number + 1) * num_pages)) for number in range(len(prompts))
    ]
    for at, tokens in enumerate(zip(*prompts, strict=True)):
        yield Batch(
            tuple(
                Chunk(f"accuracy-{number}", at, (token,), pages[number], True)
                for number, token in enumerate(tokens)
            )
        )
