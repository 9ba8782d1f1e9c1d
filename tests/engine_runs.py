"""An engine in this process, and the prompts that its exactness tests give it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from families import NUM_SPECIAL, VOCAB_SIZE

from moe_serve.config.tree import CacheConfig, Config, ModelConfig, PoolConfig, SchedulerConfig
from moe_serve.llm import LLM, Completion
from moe_serve.types import SamplingParams

NEW_TOKENS = 64
LENGTHS = (1, 5, 17, 33, 64, 90)
GREEDY = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)


def prompts_of(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(NUM_SPECIAL, VOCAB_SIZE, length).tolist() for length in lengths]


@contextmanager
def engine(
    path: Path,
    *,
    num_pages: int = 200,
    page_size: int = 16,
    tokens_per_step: int = 2048,
    prefix: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    limits: Mapping[str, int] | None = None,
    **more: Any,
) -> Iterator[LLM]:
    """One rank."""
    config = Config(
        models=(ModelConfig(path=str(path), dtype=dtype),),
        pools=(PoolConfig(name="pool", device=device, threads=1),),
        cache=CacheConfig(page_size=page_size, num_pages=num_pages, prefix=prefix),
        scheduler=SchedulerConfig(max_tokens_per_step=tokens_per_step, **(limits or {})),
        **more,
    )
    with LLM(config) as llm:
        yield llm


def tokens_of(completions: Sequence[Completion]) -> list[list[int]]:
    return [list(completion.token_ids) for completion in completions]
