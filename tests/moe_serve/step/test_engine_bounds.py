"""Steps of a real model that are to take no longer than they may."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_runs import GREEDY, engine, prompts_of
from moe_comm.transport.exchange import PeerLostError

from moe_serve.types import Request

BOUND = 0.004
SHORT = replace(GREEDY, max_tokens=8)
LENGTHS = (900, 40, 900, 700, 900)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """This thread's own seconds: others on this machine do not count."""
    monkeypatch.setattr(
        "moe_serve.step.engine.time", SimpleNamespace(perf_counter=time.thread_time)
    )
    return time.thread_time


def run(made: Any, clock: Callable[[], float], bound: float | None) -> tuple[Any, list[float]]:
    """-> tokens by request, and seconds of each step."""
    tokens: dict[str, list[int | None]] = {}
    for number, prompt in enumerate(prompts_of(LENGTHS)):
        tokens[str(number)] = []
        made.add(Request(request_id=str(number), prompt_ids=tuple(prompt), sampling=SHORT))
    steps = []
    while made.has_work:
        began = clock()
        for event in made.step(bound):
            tokens[event.request_id].append(event.token_id)
        steps.append(clock() - began)
    return tokens, steps


def test_long_prompts_keep_to_the_bound(
    checkpoint: Callable[..., Path], clock: Callable[[], float]
) -> None:
    with engine(checkpoint("llama"), deterministic=True) as llm:
        expected, unbound = run(llm._rank.engine, clock, None)
        tokens, steps = run(llm._rank.engine, clock, BOUND)
    assert tokens == expected
    assert max(unbound) > 10 * BOUND and len(steps) > 3 * len(unbound)
    later = sorted(steps[20:])
    assert median(later) < 2 * BOUND
    assert later[int(0.95 * len(later))] < 3.5 * BOUND
    # Nor is the bound left unused while prompts wait.
    assert sum(sorted(steps[20:60])) / 40 > BOUND / 2


def test_a_step_that_was_broken_off_is_taken_again(checkpoint: Callable[..., Path]) -> None:
    """With whoever is still there: all that lives gets the tokens that it gets undisturbed."""
    sampling = replace(SHORT, temperature=1.0, seed=3, frequency_penalty=0.5)
    prompts = prompts_of((30, 20, 10))

    def play(made: Any, lost: int) -> list[list[int | None]]:
        tokens: dict[str, list[int | None]] = {}
        for number, prompt in enumerate(prompts):
            tokens[str(number)] = []
            made.add(Request(request_id=str(number), prompt_ids=tuple(prompt), sampling=sampling))
        for number in range(20):
            if number == lost:
                break_off(made)
            if number == 4:
                made.abort("1")
            for event in made.step():
                tokens[event.request_id].append(event.token_id)
        assert not made.has_work
        return list(tokens.values())

    with engine(checkpoint("llama"), deterministic=True) as llm:
        made = llm._rank.engine
        expected = play(made, lost=-1)
        assert all(play(made, lost) == expected for lost in (0, 1, 4))


def break_off(made: Any) -> None:
    """A step whose peers are lost when its layers have been computed."""
    run_model = made._runner.run

    def lose(*arguments: Any) -> torch.Tensor:
        run_model(*arguments)
        raise PeerLostError("a peer is lost")

    made._runner.run = lose
    with pytest.raises(PeerLostError):
        made.step()
    made._runner.run = run_model
