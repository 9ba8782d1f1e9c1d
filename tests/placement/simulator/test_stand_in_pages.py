"""The stand-in's pages: each is counted once, whoever computed it and whoever has it."""

from collections.abc import Callable

import pytest
from moe_placement.simulator.scheduler import SchedulerLimits, SimulatedRequest
from moe_placement.simulator.sequence import Sequence
from moe_placement.simulator.stand_in import StandInScheduler

MakeLimits = Callable[..., SchedulerLimits]


def request(number: int, prompt: int, output: int, **more: object) -> SimulatedRequest:
    return SimulatedRequest(request_id=number, prompt_tokens=prompt, output_tokens=output, **more)


def run_out(scheduler: StandInScheduler) -> None:
    while not scheduler.schedule().is_empty:
        scheduler.update()
    scheduler.update()


@pytest.mark.parametrize("num_computed", [0, 63])
def test_copies_of_a_page_are_given_back(make_limits: MakeLimits, num_computed: int) -> None:
    scheduler = StandInScheduler(make_limits(num_pages=20, page_size=16))
    for number in range(3):
        one = request(number, 64, 10, blocks=(1,), block_tokens=64)
        scheduler.add(one, num_computed)
    scheduler.schedule()
    scheduler.update()
    scheduler.schedule()
    # Four of the prompt that all have, and one of each for its answer.
    assert scheduler.num_pages_used == (4 + 3 if num_computed else 4 + 1 + 2)
    scheduler.update()
    run_out(scheduler)
    assert scheduler.num_pages_used == 0
    # All the pages are there for one that needs them all.
    scheduler.add(request(9, 300, 20))
    run_out(scheduler)
    assert (scheduler.num_running, scheduler.num_waiting) == (0, 0)


def test_a_newcomer_leaves_each_that_runs_a_page_to_grow_into(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(num_pages=4, page_size=16))
    scheduler.add(request(0, 30, 20))
    scheduler.schedule()
    scheduler.update()
    scheduler.add(request(1, 30, 20))
    scheduler.schedule()
    # It would find room, and lose it again when the first one outgrows its two pages.
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 1)
    scheduler.update()
    run_out(scheduler)
    assert scheduler.num_preemptions == 0


def test_a_page_with_tokens_of_the_answer_is_no_page_of_a_block() -> None:
    sequence = Sequence(request(5, 40, 30, blocks=(1,), block_tokens=64), 0)
    assert sequence.page_keys(3, 16) == [(1, 16), (1, 32), (5, 2, 0)]


def test_who_was_preempted_comes_before_those_who_never_ran(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(num_pages=6, page_size=16))
    scheduler.add(request(0, 30, 60))
    scheduler.add(request(1, 30, 20))
    for _ in range(3):
        scheduler.schedule()
        scheduler.update()
    scheduler.add(request(2, 60, 20))
    order: list[int] = []
    while len(order) < 3:
        scheduler.schedule()
        order += scheduler.update().finished
    assert scheduler.num_preemptions > 0
    assert order == [0, 1, 2]
