"""The load of the offline benchmark, and what a run of it measures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Load:
    """B prompts of random tokens, greedy.

    Attributes:
        repeats: runs of each measurement; the fastest counts. What follows the first token is
            decoding: the time of a run to the end less that of a run to the first token.
    """

    batch_sizes: tuple[int, ...]
    num_prompt_tokens: int
    num_new_tokens: int
    vocab_size: int
    repeats: int

    def prompts(self, batch_size: int, repeat: int) -> list[list[int]]:
        """Different prompts in every run, so that no prefix cache helps."""
        generator = np.random.default_rng([batch_size, repeat])
        shape = (batch_size, self.num_prompt_tokens)
        prompts: list[list[int]] = generator.integers(3, self.vocab_size, shape).tolist()
        return prompts


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens per second over the whole batch."""

    batch_size: int
    prefill: float
    decode: float


# (prompts, new tokens) runs to the end, no matter which tokens come.
Generate = Callable[[Sequence[list[int]], int], None]


def measure(load: Load, generate: Generate) -> list[Rates]:
    """The rates of each batch size, after a short run to warm up."""
    generate(load.prompts(load.batch_sizes[0], 2 * load.repeats), 2)
    return [_measure_one(load, generate, batch_size) for batch_size in load.batch_sizes]


def _measure_one(load: Load, generate: Generate, batch_size: int) -> Rates:
    first, whole = [], []
    for repeat in range(load.repeats):
        first.append(_seconds(generate, load.prompts(batch_size, 2 * repeat), 1))
        prompts = load.prompts(batch_size, 2 * repeat + 1)
        whole.append(_seconds(generate, prompts, 1 + load.num_new_tokens))
    return Rates(
        batch_size,
        batch_size * load.num_prompt_tokens / min(first),
        batch_size * load.num_new_tokens / (min(whole) - min(first)),
    )


def _seconds(generate: Generate, prompts: Sequence[list[int]], num_new_tokens: int) -> float:
    started = time.perf_counter()
    generate(prompts, num_new_tokens)
    return time.perf_counter() - started
