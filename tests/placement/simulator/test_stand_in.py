"""The stand-in scheduler: who computes what, step by step."""

from collections.abc import Callable

import pytest
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.scheduler import (
    Outcome,
    PrefillChunk,
    RefusedError,
    SchedulerLimits,
    SimulatedRequest,
    Step,
)
from moe_placement.simulator.stand_in import StandInScheduler

MakeLimits = Callable[..., SchedulerLimits]


def request(number: int, prompt: int, output: int, **more: object) -> SimulatedRequest:
    return SimulatedRequest(request_id=number, prompt_tokens=prompt, output_tokens=output, **more)


def take_steps(scheduler: StandInScheduler, num_steps: int) -> list[tuple[Step, Outcome]]:
    return [(scheduler.schedule(), scheduler.update()) for _ in range(num_steps)]


def run_out(scheduler: StandInScheduler) -> list[tuple[Step, Outcome]]:
    taken = take_steps(scheduler, 1)
    while not taken[-1][0].is_empty:
        taken += take_steps(scheduler, 1)
    return taken[:-1]


def test_one_request_is_prefilled_in_chunks_and_then_decodes(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_tokens_per_step=256))
    scheduler.add(request(7, 600, 3))
    steps = run_out(scheduler)
    assert [step.chunks for step, _ in steps[:3]] == [
        (PrefillChunk(7, 256, 0),),
        (PrefillChunk(7, 256, 256),),
        (PrefillChunk(7, 88, 512),),
    ]
    assert steps[2][1].emitted == (7,)
    assert [(step.num_decoding, step.decode_context) for step, _ in steps[3:]] == [
        (1, 601),
        (1, 602),
    ]
    assert [outcome.finished for _, outcome in steps] == [(), (), (), (), (7,)]
    assert scheduler.num_pages_used == scheduler.num_running == 0


def test_prefill_shares_the_budget_with_decoding(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_tokens_per_step=64))
    scheduler.add(request(0, 32, 50))
    scheduler.add(request(1, 90, 50))
    first, second, third = (step for step, _ in take_steps(scheduler, 3))
    assert first.chunks == (PrefillChunk(0, 32, 0), PrefillChunk(1, 32, 0))
    assert second.chunks == (PrefillChunk(1, 58, 32),) and second.num_decoding == 1
    assert third == Step((), 2, 34 + 91)


def test_no_more_run_than_may(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_sequences=3))
    for number in range(5):
        scheduler.add(request(number, 10, 4))
    take_steps(scheduler, 1)
    assert (scheduler.num_running, scheduler.num_waiting) == (3, 2)
    assert sorted(one for _, outcome in run_out(scheduler) for one in outcome.finished) == [
        *range(5)
    ]


def test_equal_blocks_are_computed_once(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(page_size=16))
    scheduler.add(request(0, 100, 2, blocks=(5, 6, 7), block_tokens=32))
    run_out(scheduler)
    scheduler.add(request(1, 100, 2, blocks=(5, 6, 8), block_tokens=32))
    (step, _), *_ = run_out(scheduler)
    assert step.chunks == (PrefillChunk(1, 36, 64),)
    assert (scheduler.num_prompt_tokens, scheduler.num_cached_tokens) == (200, 64)


def test_a_prompt_found_whole_still_computes_its_last_token(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(page_size=16))
    for number in range(2):
        scheduler.add(request(number, 64, 2, blocks=(1, 2), block_tokens=32))
        (step, _), *_ = run_out(scheduler)
    assert step.chunks == (PrefillChunk(1, 16, 48),)


def test_without_prefix_caching_nothing_is_found(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(prefix_caching=False))
    for number in range(2):
        scheduler.add(request(number, 64, 2, blocks=(1, 2), block_tokens=32))
        run_out(scheduler)
    assert scheduler.num_cached_tokens == 0 and scheduler.num_pages_used == 0


def test_the_block_used_least_recently_is_evicted_first(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(num_pages=9, page_size=16))
    for number, block in enumerate((1, 2, 1, 3)):
        # Four pages of the prompt and one to decode into.
        scheduler.add(request(number, 64, 2, blocks=(block,), block_tokens=64))
        run_out(scheduler)
    before = scheduler.num_cached_tokens
    scheduler.add(request(4, 64, 2, blocks=(1,), block_tokens=64))
    run_out(scheduler)
    assert scheduler.num_cached_tokens == before + 48
    scheduler.add(request(5, 64, 2, blocks=(2,), block_tokens=64))
    run_out(scheduler)
    assert scheduler.num_cached_tokens == before + 48


def test_who_comes_last_is_preempted_and_ends_all_the_same(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(num_pages=12, page_size=16))
    for number in range(3):
        scheduler.add(request(number, 48, 60))
    steps = run_out(scheduler)
    preempted = [one for step, _ in steps for one in step.preempted]
    assert preempted and set(preempted) <= {1, 2}
    assert scheduler.num_preemptions == len(preempted)
    finished = [one for _, outcome in steps for one in outcome.finished]
    assert sorted(finished) == [0, 1, 2] and finished[0] == 0
    num_tokens = sum(len(outcome.emitted) + outcome.num_decoded for _, outcome in steps)
    assert num_tokens == 3 * 60


def test_a_request_behind_its_forerunner_waits_and_shares(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_tokens_per_step=64, page_size=16))
    for number in range(2):
        scheduler.add(request(number, 130, 2, blocks=(1,), block_tokens=128))
    steps = run_out(scheduler)
    computed = sum(chunk.num_tokens for step, _ in steps for chunk in step.chunks)
    assert computed == 130 + 2
    assert scheduler.num_cached_tokens == 128


def test_who_waits_for_an_aborted_forerunner_goes_on(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_tokens_per_step=64, page_size=16))
    for number in range(2):
        scheduler.add(request(number, 130, 2, blocks=(1,), block_tokens=128))
    take_steps(scheduler, 1)
    assert scheduler.abort(0) == 0
    assert [outcome.finished for _, outcome in run_out(scheduler)][-1] == (1,)


def test_a_cache_computed_elsewhere_is_not_computed_again(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits())
    scheduler.add(request(0, 101, 4), num_computed=100)
    steps = run_out(scheduler)
    assert steps[0][0].chunks == (PrefillChunk(0, 1, 100),)
    assert len(steps) == 4 and steps[-1][1].finished == (0,)


@pytest.mark.parametrize("when", ["waiting", "prefill", "decoding", "in a step"])
def test_abort_frees_everything_and_tells_the_tokens(make_limits: MakeLimits, when: str) -> None:
    scheduler = StandInScheduler(make_limits(max_tokens_per_step=64))
    scheduler.add(request(0, 100, 9))
    take_steps(scheduler, {"waiting": 0, "prefill": 1, "decoding": 4, "in a step": 4}[when])
    if when == "in a step":
        scheduler.schedule()
    assert scheduler.abort(0) == (3 if when in ("decoding", "in a step") else 0)
    if when == "in a step":
        assert scheduler.update() == Outcome()
    assert scheduler.schedule().is_empty
    assert (scheduler.num_running, scheduler.num_waiting, scheduler.num_pages_used) == (0, 0, 0)


def test_speculation_yields_its_mean_and_no_token_too_many(make_limits: MakeLimits) -> None:
    limits = make_limits(tokens_per_step=2.5, decode_tokens=4, max_tokens_per_step=10)
    scheduler = StandInScheduler(limits)
    for number in range(3):
        scheduler.add(request(number, 5, 101))
    steps = run_out(scheduler)
    # Ten tokens a step: two sequences of four decode at once, one after the other two.
    assert max(step.num_decoding for step, _ in steps) == 2
    alone = StandInScheduler(limits)
    alone.add(request(0, 5, 101))
    outcomes = [outcome for _, outcome in run_out(alone)]
    assert len(outcomes) == 1 + 100 / 2.5
    assert {outcome.tokens_each for outcome in outcomes[1:]} == {2, 3}


@pytest.mark.parametrize(
    ("change", "prompt", "output", "message"),
    [
        ({}, 0, 5, "0 prompt tokens and 5 output tokens; give at least 1"),
        ({}, 5, 0, "5 prompt tokens and 0 output tokens; give at least 1"),
        ({"max_context": 99}, 90, 10, "100 tokens, max_context is 99"),
        ({"num_pages": 6}, 90, 8, "98 tokens in 7 pages of 16, the rank has 6"),
    ],
)
def test_what_could_never_end_is_refused(
    make_limits: MakeLimits, change: dict[str, int], prompt: int, output: int, message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        StandInScheduler(make_limits(**change)).add(request(3, prompt, output))


def test_what_just_fits_is_taken_and_ends(make_limits: MakeLimits) -> None:
    for change in ({}, {"tokens_per_step": 3.0, "decode_tokens": 3}):
        scheduler = StandInScheduler(make_limits(num_pages=6, **change))
        scheduler.add(request(0, 90, 7 if not change else 5))
        assert run_out(scheduler)[-1][1].finished == (0,)


def test_a_full_queue_refuses(make_limits: MakeLimits) -> None:
    scheduler = StandInScheduler(make_limits(max_live=2))
    scheduler.add(request(0, 10, 2))
    scheduler.add(request(1, 10, 2))
    with pytest.raises(RefusedError, match="2 requests run or wait on this rank, max_live is 2"):
        scheduler.add(request(2, 10, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_pages": 0}, "num_pages is 0; it must be at least 1"),
        ({"tokens_per_step": 2.0}, "tokens_per_step is 2; a step that computes decode_tokens 1"),
        ({"decode_tokens": 600}, "decode_tokens 600 are more than the 512"),
    ],
)
def test_limits_that_let_nothing_through_are_named(
    make_limits: MakeLimits, change: dict[str, float], message: str
) -> None:
    with pytest.raises(SimulationError, match=message):
        make_limits(**change)
