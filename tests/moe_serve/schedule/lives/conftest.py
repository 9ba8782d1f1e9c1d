"""A state machine that leads random lives in a world with far too few pages."""

import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from moe_serve.errors import OverloadedError, RequestError
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.types import Request

BEGINNINGS = [(), (0, 1), (0, 1, 0, 0), (0, 1, 0, 1, 1, 0), (1,) * 7]
# Seeds rather than values: hypothesis draws values that are small and alike, and small answers
# to like requests never fill the pages.
RANDOM = st.randoms(use_true_random=True)


def draw_limits(random: Random) -> dict[str, int]:
    return {
        "num_pages": random.randint(6, 16),
        "page_size": random.randint(1, 3),
        "max_tokens_per_step": random.choice([1, 3, 5, 8, 13, 21]),
        "max_sequences": random.choice([1, 3, 4, 5, 6]),
        "max_live": random.choice([6, 24, 24]),
        "max_context": random.choice([16, 32, 32]),
        "prefix_caching": random.random() < 0.75,
    }


def draw_options(random: Random) -> dict[str, Any]:
    tail = (random.randint(0, 1) for _ in range(random.randint(1, 3)))
    return {
        "prompt_ids": (*random.choice(BEGINNINGS), *tail),
        "max_tokens": random.choice([1, 4, 8, 12, 16]),
        "stop_token_ids": random.choice([(), (), (), (3,)]),
        "end_token_ids": random.choice([(), (), (5,)]),
        "ignore_eos": random.random() < 0.5,
        "tenant": random.choice([0, 0, 0, 1]),
    }


class Machine(RuleBasedStateMachine):
    """Leads the lives of the requests of one world; `make_machine` says which."""

    world_type: Any
    make_request: Callable[..., Request]
    scheduler_type: type[Scheduler]

    @initialize(random=RANDOM)
    def start(self, random: Random) -> None:
        self.world = self.world_type(self.scheduler_type, **draw_limits(random))
        self.num_added = self.num_aborted = 0
        self.add(random)

    @rule(random=RANDOM)
    @precondition(lambda self: self.world.scheduler.num_waiting < 5)
    def add(self, random: Random) -> None:
        for _ in range(random.randint(2, 6)):
            options = draw_options(random)
            for _ in range(random.choice([1, 1, 2, 4])):
                self.num_added += 1
                self.add_one(self.make_request(f"r{self.num_added}", **options))

    def add_one(self, request: Request) -> None:
        limits, world = self.world.limits, self.world
        num_tokens = len(request.prompt_ids) + request.sampling.max_tokens
        num_slots = limits["num_pages"] * limits["page_size"]
        fits = num_tokens <= limits["max_context"] and num_tokens - 1 <= num_slots
        is_full = world.num_live >= limits["max_live"]
        if fits and not is_full:
            world.add(request)
            return
        with pytest.raises(OverloadedError if fits else RequestError):
            world.add(request)

    @rule(random=RANDOM)
    @precondition(lambda self: self.world.num_live and 4 * self.num_aborted < self.num_added)
    def abort(self, random: Random) -> None:
        self.num_aborted += 1
        world = self.world
        world.abort(random.choice([name for name in world.requests if world.is_live(name)]))

    @rule(max_tokens=st.sampled_from([None, None, 1, 2, 5]))
    @precondition(lambda self: not self.world.batch.chunks)
    def begin_step(self, max_tokens: int | None) -> None:
        self.world.begin_step(max_tokens)

    @rule()
    @precondition(lambda self: self.world.batch.chunks)
    def cancel_step(self) -> None:
        self.world.cancel_step()

    @rule()
    @precondition(lambda self: self.world.batch.chunks)
    def end_step(self) -> None:
        self.world.end_step()

    @rule(num_steps=st.integers(1, 6))
    @precondition(lambda self: not self.world.batch.chunks)
    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.world.step()
            self.world.check_pages()

    @invariant()
    def pages_are_right(self) -> None:
        self.world.check_pages()

    def teardown(self) -> None:
        # After a failure the checks would only hide the first one behind later ones.
        if sys.exception() is not None:
            return
        world = self.world
        if world.batch.chunks:
            world.end_step()
        world.run_until_idle()
        event(f"preempted {min(world.scheduler.num_preemptions, 3)} times or more")
        world.check_end()


def make_machine(
    world_type: Any, make_request: Callable[..., Request], scheduler_type: type[Scheduler]
) -> type[Machine]:
    of_these = {
        "world_type": staticmethod(world_type),
        "make_request": staticmethod(make_request),
        "scheduler_type": scheduler_type,
    }
    return type("Machine", (Machine,), of_these)


@pytest.fixture
def run_lives(world_type: Any, make_request: Callable[..., Request]) -> Callable[..., None]:
    """Runs the machine over a scheduler type, which the checks may find wanting."""

    def run(scheduler_type: type[Scheduler] = Scheduler, **chosen: Any) -> None:
        machine = make_machine(world_type, make_request, scheduler_type)
        always = {"deadline": None, "derandomize": True, "database": None}
        health = list(HealthCheck)
        options = settings(suppress_health_check=health, **always, **chosen)
        run_state_machine_as_test(machine, settings=options)

    return run
