"""The arithmetic of the slices benchmark, on timelines made up here."""

import numpy as np
import pytest

from moe_serve.bench.slices_figures import (
    Objective,
    ShareError,
    Timeline,
    gaps,
    token_seconds,
    tokens_in_time,
)
from moe_serve.bench.slices_job import Answer, RankLog
from moe_serve.bench.slices_memory import compare_answers
from moe_serve.bench.slices_trace import Bursts
from moe_serve.bench.table import target


def log_of(
    steps: list[tuple[int, float, float]], last: float, pauses: tuple[float, ...] = ()
) -> RankLog:
    """Steps are (tenant, begin, end); what counts begins at 0."""
    tenants, begins, ends = (list(each) for each in zip(*steps, strict=True))
    return RankLog(
        first=0.0,
        last=last,
        step_tenants=tenants,
        step_begins=begins,
        step_ends=ends,
        pause_begins=list(pauses),
    )


def in_turn(num_turns: int, first: float, second: float, between: float) -> RankLog:
    """Two tenants have a step each in turn, with so much time behind each."""
    steps, now = [], 0.0
    for _ in range(num_turns):
        for tenant, seconds in ((0, first), (1, second)):
            steps.append((tenant, now, now + seconds))
            now += seconds + between
    return log_of(steps, now)


def test_a_turn_lasts_until_the_next_step_begins() -> None:
    timeline = Timeline.of(in_turn(100, first=0.001, second=0.007, between=0.001))
    assert timeline.percent(0) == pytest.approx(20.0)
    assert timeline.percent(1) == pytest.approx(80.0)
    assert timeline.step_percent(0) == pytest.approx(12.5)
    assert timeline.busy() == pytest.approx(0.8)
    assert timeline.step_seconds(1) == pytest.approx(np.full(100, 0.007))


def test_a_pause_ends_a_turn_and_is_nobodys() -> None:
    log = log_of([(0, 0.0, 0.1), (0, 0.5, 0.6)], last=1.0, pauses=(0.125, 0.3, 0.625))
    timeline = Timeline.of(log)
    assert timeline.percent(0) == pytest.approx(25.0)
    assert timeline.busy() == pytest.approx(0.2)
    assert timeline.percent(1) == 0.0


def test_only_what_lies_within_the_time_that_counts_is_counted() -> None:
    log = log_of([(0, -0.5, 0.25), (1, 0.25, 0.75), (0, 0.75, 2.0)], last=1.0)
    timeline = Timeline.of(log)
    assert timeline.percent(0) == pytest.approx(50.0)
    assert timeline.percent(1) == pytest.approx(50.0)
    assert timeline.busy() == pytest.approx(1.0)


def test_windows_find_where_a_share_is_most_wrong() -> None:
    # Half of the time each, but in the third second one has all of it.
    steps = [
        (tenant, at + tenant * 0.01, at + tenant * 0.01 + 0.01)
        for at in np.arange(0, 2, 0.02).tolist()
        for tenant in (0, 1)
    ]
    timeline = Timeline.of(log_of([*steps, (0, 2.0, 3.0)], last=3.0))
    percent_W = timeline.window_percents(0, 1.0)
    assert len(percent_W) == 21
    assert percent_W[:11] == pytest.approx(np.full(11, 50.0), abs=1e-6)
    assert percent_W[-1] == pytest.approx(100.0)
    assert timeline.window_percents(1, 1.0) + percent_W == pytest.approx(np.full(21, 100.0))
    error = ShareError.of(percent_W, 50.0)
    assert error.largest == pytest.approx(50.0)
    assert error.mean == pytest.approx(sum(range(0, 55, 5)) / 21)
    short = ShareError.of(timeline.window_percents(0, 0.2)[:80], 50.0)
    assert short.largest == pytest.approx(0.0, abs=1e-6)


def test_a_tenant_without_a_step_has_nothing() -> None:
    timeline = Timeline.of(in_turn(100, 0.005, 0.005, 0.0))
    assert timeline.percent(2) == timeline.step_percent(2) == 0.0
    assert not timeline.window_percents(2, 0.2).any()


def answer(
    asked: float, times: list[float], token_ids: tuple[int, ...] = (), tenant: int = 0
) -> Answer:
    ids = list(token_ids) or [7] * len(times)
    return Answer(tenant=tenant, asked=asked, times=times, token_ids=ids, is_done=True)


def test_gaps_are_within_an_answer_and_within_the_time() -> None:
    answers = [answer(0.0, [0.5, 1.0, 1.1, 1.4]), answer(0.0, [1.2, 2.0, 9.0]), answer(0.0, [])]
    assert gaps(answers, 1.0, 3.0) == pytest.approx([0.1, 0.3, 0.8])
    assert len(gaps([], 1.0, 3.0)) == 0


def test_tokens_count_where_the_answer_was_in_time() -> None:
    objective = Objective(first_token=0.5, token=0.1)
    good = answer(1.0, [1.5, 1.6, 1.7])
    late, slow = answer(1.0, [1.6, 1.7]), answer(1.0, [1.5, 1.7])
    unfinished = answer(1.0, [1.5, 1.6])
    unfinished.is_done = False
    assert token_seconds(good) == pytest.approx(0.1)
    one_token = answer(1.0, [1.25])
    objective = Objective(first_token=0.5, token=0.1000001)
    answers = [good, late, slow, unfinished, one_token]
    assert tokens_in_time(answers, objective) == 4


def test_answers_are_compared_as_far_as_both_came() -> None:
    one, other = RankLog(), RankLog()
    one.answers = {
        "a": answer(0, [1, 2, 3], (5, 6, 7)),
        "b": answer(0, [1, 2], (8, 9)),
        "c": answer(0, [1], (1,)),
        "d": answer(0, [1], (1,), tenant=1),
    }
    other.answers = {
        "a": answer(0, [1, 2], (5, 6)),
        "b": answer(0, [1, 2], (8, 8)),
        "d": answer(0, [1], (2,), tenant=1),
    }
    assert compare_answers(one, other, tenant=0) == (4, 1)


def test_a_target_is_met_on_its_own_side() -> None:
    assert target("error", "1 s", 0.5, 0.5)["met"] == "yes"
    assert target("error", "1 s", 0.6, 0.5)["met"] == "no"
    gain = target("gain", "1 s", 2.6, 2.5, at_least=True)
    assert (gain["met"], gain["target"]) == ("yes", ">= 2.5")
    assert target("gain", "1 s", 2.4, 2.5, at_least=True)["met"] == "no"


def test_bursts_have_their_duty_and_phases_of_their_own() -> None:
    bursts = Bursts(
        duty=0.3,
        burst_seconds=1.0,
        token_seconds=0.01,
        num_sequences=4,
        prompt_tokens=4,
        max_output_tokens=120,
    )
    traces = [bursts.arrivals(tenant, 100.0, seed=5) for tenant in (0, 1)]
    assert traces[0] == bursts.arrivals(0, 100.0, seed=5)
    for arrivals in traces:
        begins, lengths = zip(
            *sorted({(one.at, one.output_tokens) for one in arrivals}), strict=True
        )
        assert len(begins) == 30 and len(arrivals) == 120
        assert min(begins) >= 0 and begins[-1] + lengths[-1] * 0.01 <= 100
        # Within the most tokens, that is all of the duty but what is cut off.
        assert max(lengths) == 120 and min(lengths) < 70
        assert 0.27 < sum(lengths) * 0.01 / 100 <= 0.3
        pauses = np.diff(begins) - 0.01 * np.array(lengths[:-1])
        assert pauses.min() > 1.0 and pauses.max() < 4.0
    busy = [
        np.sum(
            [(times >= one.at) & (times < one.at + one.output_tokens * 0.01) for one in arrivals],
            axis=0,
        )
        > 0
        for times in [np.arange(0, 100, 0.01)]
        for arrivals in traces
    ]
    assert (busy[0] & busy[1]).mean() == pytest.approx(0.09, abs=0.05)
