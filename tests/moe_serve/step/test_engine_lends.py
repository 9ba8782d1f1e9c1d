"""Two real models in one process on one ledger: who asks for more harms nobody."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_runs import GREEDY, engine, prompts_of, tokens_of
from lending_engines import LendingEngine, resident, run_until_idle

from moe_serve.llm import LLM
from moe_serve.schedule.ledger import MemoryLedger

PAGE_SIZE = 16
SHORT = replace(GREEDY, max_tokens=24)
PROMPTS = prompts_of((40, 5, 33, 17, 60, 9), seed=3)
OTHER_PROMPTS = prompts_of((21, 50, 3), seed=4)
# Of one page of the checkpoints, in all layers.
PAGE_BYTES = 3 * 2 * PAGE_SIZE * 2 * 32 * 4


@pytest.fixture(scope="module")
def models(checkpoint: Callable[..., Path]) -> Iterator[tuple[LLM, LLM]]:
    """Deterministic: tokens do not depend on who is computed together."""
    with ExitStack() as stack:
        opened: list[LLM] = []
        for family in ("llama", "qwen3_moe"):
            settings: dict[str, Any] = {"page_size": PAGE_SIZE, "deterministic": True}
            made = engine(checkpoint(family), prefix=True, **settings)
            opened.append(stack.enter_context(made))
        yield opened[0], opened[1]


@pytest.fixture(scope="module")
def alone(models: tuple[LLM, LLM]) -> list[list[list[int]]]:
    """What each model answers with all pages for itself."""
    return [
        tokens_of(model.generate(prompts, SHORT))
        for model, prompts in zip(models, (PROMPTS, OTHER_PROMPTS), strict=True)
    ]


def answers(engine: LendingEngine) -> list[list[int | None]]:
    return list(engine.tokens.values())


def test_one_that_asks_for_ever_more_is_held_to_its_limit(
    models: tuple[LLM, LLM], alone: list[list[list[int]]]
) -> None:
    ledger = MemoryLedger(30 * PAGE_BYTES)
    greedy = LendingEngine(models[0], ledger, 0, guaranteed=6, limit=13)
    other = LendingEngine(models[1], ledger, 1, guaranteed=12, limit=12)
    assert greedy.budget.page_bytes == PAGE_BYTES
    for _ in range(3):
        greedy.add(PROMPTS, SHORT)
    other.add(OTHER_PROMPTS, SHORT)
    held: list[int] = []

    def look() -> None:
        held.append(greedy.budget.num_held)
        if len(held) % 40 == 0:
            ours = greedy.budget.held_bytes + other.budget.held_bytes
            assert resident([greedy, other]) == ours

    run_until_idle([greedy, other], look)
    assert max(held) == 13 and greedy.num_preemptions > 0
    assert (answers(greedy), answers(other)) == (3 * alone[0], alone[1])
    assert other.num_preemptions == 0


def test_pages_that_were_lent_are_taken_back_and_tokens_stay_the_same(
    models: tuple[LLM, LLM], alone: list[list[list[int]]]
) -> None:
    ledger = MemoryLedger(24 * PAGE_BYTES)
    borrower = LendingEngine(models[0], ledger, 0, guaranteed=6, limit=24)
    owner = LendingEngine(models[1], ledger, 1, guaranteed=16, limit=24)
    borrower.add(2 * PROMPTS, SHORT)
    while borrower.budget.num_held < 22:
        borrower.step()
    assert resident([borrower, owner]) == borrower.budget.held_bytes >= 22 * PAGE_BYTES
    owner.add(OTHER_PROMPTS, SHORT)
    for _ in range(20):
        owner.step()
    assert borrower.num_preemptions > 0 and borrower.budget.num_held < 16
    assert len(borrower.empty_pages) == 24 - borrower.budget.num_held
    run_until_idle([owner, borrower], lambda: None)
    # Once more, in pages that were given back and taken again.
    owner.add(OTHER_PROMPTS, SHORT)
    borrower.add(PROMPTS, SHORT)
    run_until_idle([borrower, owner], lambda: None)
    assert answers(borrower) == 3 * alone[0] and answers(owner) == 2 * alone[1]
    held = borrower.budget.held_bytes + owner.budget.held_bytes
    assert resident([borrower, owner]) == held <= ledger.total_bytes


def test_discarding_a_page_in_use_changes_the_tokens(
    models: tuple[LLM, LLM], alone: list[list[list[int]]]
) -> None:
    changed = 0
    for number in range(4):
        tenant = LendingEngine(models[0], MemoryLedger(40 * PAGE_BYTES), 0, 40, 40)
        tenant.add(PROMPTS[:1], SHORT)
        tenant.step()
        used = [page_id for page_id in range(40) if page_id not in tenant.empty_pages]
        tenant.cache.discard([used[number % len(used)]])
        run_until_idle([tenant], lambda: None)
        changed += answers(tenant) != alone[0][:1]
    assert changed >= 3
