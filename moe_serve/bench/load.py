"""The load of the offline benchmark, and what a run of it measures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Load:
    """B prompts of random tokens, greedy.

    Attributes:
        repeats: runs of each measurement; the fastest counts.
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


def measure(load: Load, generate: Callable[[Sequence[list[int]], int], None]) -> list[Rates]:
    """
    Args:
        generate: (prompts, new tokens) runs to the end, no matter which tokens come.
    """
    generate(load.prompts(load.batch_sizes[0], load.repeats), 2)
    return [_measure_one(load, generate, batch_size) for batch_size in load.batch_sizes]


def _measure_one(
    load: Load, generate: Callable[[Sequence[list[int]], int], None], batch_size: int
) -> Rates:
    prefill, decode = [], []
    for repeat in range(load.repeats):
        prompts = load.prompts(batch_size, repeat)
        first = _seconds(generate, prompts, 1)
        others = load.prompts(batch_size, repeat + load.repeats + 1)
        whole = _seconds(generate, others, 1 + load.num_new_tokens)
        prefill.append(first)
        decode.append(max(whole - first, 1e-9))
    return Rates(
        batch_size,
        batch_size * load.num_prompt_tokens / min(prefill),
        batch_size * load.num_new_tokens / min(decode),
    )


def _seconds(
    generate: Callable[[Sequence[list[int]], int], None], prompts: Sequence[list[int]], new: int
) -> float:
    started = time.perf_counter()
    generate(prompts, new)
    return time.perf_counter() - started
