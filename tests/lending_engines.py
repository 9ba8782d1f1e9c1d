"""Engines of several models in this process, which share memory by one ledger."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from engine_runs import GREEDY
from resident_bytes import resident_bytes

from moe_serve.llm import LLM
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.cache import allocate_lending_cache, page_bytes
from moe_serve.step.engine import Engine
from moe_serve.types import Request, SamplingParams


class LendingEngine:
    """An engine whose cache is made anew, within a budget of the ledger.

    Attributes:
        tokens: of each request, in the order in which they came.
    """

    def __init__(
        self, llm: LLM, ledger: MemoryLedger, number: int, guaranteed: int, limit: int
    ) -> None:
        engine: Any = llm._rank.engine
        config, specs = llm.config, engine._runner._model.cache_specs
        page_size, dtype = config.cache.page_size, torch.float32
        self.cache = allocate_lending_cache(specs, limit, page_size, dtype)
        self.budget: PageBudget = ledger.open_pages(
            number, page_bytes(specs, page_size, dtype), guaranteed, limit, self.cache.discard
        )
        engine._scheduler = Scheduler(
            num_pages=limit,
            page_size=page_size,
            max_tokens_per_step=config.scheduler.max_tokens_per_step,
            max_sequences=config.scheduler.max_sequences,
            max_live=config.scheduler.max_live,
            max_context=config.models[0].max_context,
            prefix_caching=config.cache.prefix,
            budget=self.budget,
        )
        engine._runner._caches = self.cache.layers
        self.engine: Engine = engine
        self.num_added = 0
        self.tokens: dict[str, list[int | None]] = {}

    def add(self, prompts: Sequence[Sequence[int]], sampling: SamplingParams = GREEDY) -> None:
        for prompt in prompts:
            name = str(self.num_added)
            self.num_added += 1
            self.tokens[name] = []
            self.engine.add(Request(request_id=name, prompt_ids=tuple(prompt), sampling=sampling))

    def step(self) -> None:
        for event in self.engine.step():
            self.tokens[event.request_id].append(event.token_id)

    @property
    def empty_pages(self) -> list[int]:
        """Pages that hold zeros in all layers."""
        content = torch.stack([each.tensor.flatten(1).any(1) for each in self.cache.tensors])
        page_ids: list[int] = (~content.any(0)).nonzero()[:, 0].tolist()
        return page_ids

    @property
    def num_preemptions(self) -> int:
        return self.engine.stats().num_preemptions


def resident(engines: Sequence[LendingEngine]) -> int:
    """Bytes that their caches take, by the system's count."""
    tensors = [each.tensor for engine in engines for each in engine.cache.tensors]
    return resident_bytes(tensors)


def run_until_idle(engines: Sequence[LendingEngine], look: Callable[[], None]) -> None:
    """Steps in turn; `look` is called behind each."""
    while working := [each for each in engines if each.engine.has_work]:
        for each in working:
            each.step()
            look()
