"""Deadlines: kept, scaled, overrun; only lower bounds of time are sure on a busy machine."""

import time

import pytest
from moe_devices.pacer import DeadlinePacer, RealTime, sleep_until
from moe_devices.work import ExpertsWork, LinkWork, Work

EXPERTS = ExpertsWork((3, 0, 5))
LINK = LinkWork({"a>b": 100})


def declared(work: Work) -> float:
    return 0.01 if work is EXPERTS else 0.002


def now() -> float:
    return time.perf_counter()


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.003])
def test_a_sleep_never_ends_early_and_tells_how_late_it_is(seconds: float) -> None:
    deadline = now() + seconds
    late = sleep_until(deadline)
    assert 0.0 <= late <= now() - deadline


def test_a_deadline_that_has_passed_is_late_at_once() -> None:
    assert 1.0 <= sleep_until(now() - 1.0) < 2.0


@pytest.mark.parametrize("time_scale", [0.5, 2.0])
def test_a_segment_lasts_as_long_as_declared_times_the_scale(time_scale: float) -> None:
    pacer, begun = DeadlinePacer(declared, time_scale), now()
    pacer.wait(begun, lambda: EXPERTS)
    assert 0.01 * time_scale <= now() - begun < 0.01 * time_scale + 2.0


def test_sleeps_that_nobody_disturbs_are_precise() -> None:
    late = sorted(sleep_until(now() + 0.001) for _ in range(32))
    assert late[8] < 0.0005


def test_work_counts_towards_the_deadline() -> None:
    pacer, begun = DeadlinePacer(lambda work: 1.0, 1.0), now() - 0.99
    pacer.wait(begun, lambda: EXPERTS)
    assert 1.0 <= now() - begun < 1.9


def test_work_longer_than_declared_is_an_overrun_of_its_segment() -> None:
    pacer = DeadlinePacer(declared, 1.0)
    pacer.wait(now() - 0.5, lambda: EXPERTS)
    pacer.wait(now() - 0.25, lambda: LINK)
    pacer.wait(now() - 0.25, lambda: LINK)
    experts, link = pacer.counts["experts"], pacer.counts["link"]
    assert (experts.num_segments, experts.num_overruns) == (1, 1)
    assert (link.num_segments, link.num_overruns) == (2, 2)
    assert 0.49 <= experts.overrun_seconds < 2.49
    assert 2 * 0.248 <= link.overrun_seconds < 4.0


def test_a_segment_within_its_time_is_no_overrun() -> None:
    pacer = DeadlinePacer(lambda work: 100.0, 0.001)
    pacer.wait(now() - 0.02, lambda: EXPERTS)
    assert pacer.counts["experts"].num_segments == 1
    slow = DeadlinePacer(lambda work: 30.0, 1.0)
    slow.wait(now() - 30.5, lambda: EXPERTS)
    assert slow.counts["experts"].num_overruns == 0


def test_what_is_not_declared_is_neither_paced_nor_counted() -> None:
    pacer, begun = DeadlinePacer(lambda work: 0.0, 5.0), now()
    pacer.wait(begun - 60.0, lambda: EXPERTS)
    assert now() - begun < 1.0
    assert not pacer.counts


def test_real_devices_do_not_even_ask_what_the_work_was() -> None:
    def fail() -> Work:
        raise AssertionError

    pacer = RealTime()
    pacer.wait(now(), fail)
    assert not pacer.counts


def test_experts_count_rows_and_those_that_have_any() -> None:
    assert (EXPERTS.num_rows, EXPERTS.num_active) == (8, 2)
