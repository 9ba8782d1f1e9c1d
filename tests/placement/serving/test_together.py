from collections.abc import Callable

import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.step_timer import StepTimer
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.loop import opening_burst, settle_loop
from moe_placement.serving.together import predict_together, request_shape
from moe_placement.serving.workload import Objective, Workload

MakeWorkload = Callable[..., Workload]
ROOMY = ServingLimits()


def test_one_client_waits_for_nobody(timer: StepTimer, make_workload: MakeWorkload) -> None:
    found = predict_together(timer, make_workload(concurrency=1), limits=ROOMY)
    step = timer.seconds(StepShape(decode_sequences=1))
    prefill = timer.seconds(StepShape(prefill_tokens=1000, decode_sequences=1))
    assert found.tpot == pytest.approx(step, rel=0.01)
    assert prefill < found.ttft < prefill + step
    assert not found.saturated


@pytest.mark.parametrize("clients", [1, 8, 64, 512])
def test_littles_law_holds_in_a_closed_loop(
    timer: StepTimer, make_workload: MakeWorkload, clients: int
) -> None:
    request = request_shape(make_workload())
    state = settle_loop(timer.seconds, request, clients, ROOMY)
    mixture = state.mixture
    before = mixture.residual + mixture.service + state.waiting
    answer = request.steps * mixture.mean
    assert state.rate * (before + answer) == pytest.approx(clients, rel=1e-3)
    assert state.rate * answer == pytest.approx(state.decoding, rel=1e-3)
    assert state.rate * mixture.slot <= 1.01


def test_a_step_carries_the_prefill_of_the_requests_that_it_replaces(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    state = settle_loop(timer.seconds, request_shape(make_workload()), 64, ROOMY)
    prefill_seconds = state.rate * 1000 * 20e-6
    plain = timer.seconds(StepShape(decode_sequences=state.decoding))
    assert state.mixture.mean == pytest.approx(plain / (1 - prefill_seconds), rel=0.01)


def test_more_clients_lengthen_both_times_and_raise_the_rate(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    few, many = (
        predict_together(timer, make_workload(concurrency=clients), limits=ROOMY)
        for clients in (8, 128)
    )
    assert many.ttft > few.ttft and many.tpot > few.tpot
    assert many.throughput > few.throughput
    assert many.throughput == pytest.approx(many.request_rate * 501)


def test_a_slow_stream_is_like_one_client_alone(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    stream = predict_together(timer, make_workload(rate=1e-3), limits=ROOMY)
    alone = predict_together(timer, make_workload(concurrency=1), limits=ROOMY)
    assert stream.ttft == pytest.approx(alone.ttft, rel=0.02)
    assert stream.tpot == pytest.approx(alone.tpot, rel=0.02)
    assert stream.utilisation["both"] < 0.01


def test_a_stream_at_a_closed_loops_rate_decodes_as_fast(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    closed = predict_together(timer, make_workload(concurrency=64), limits=ROOMY)
    stream = predict_together(timer, make_workload(rate=closed.request_rate), limits=ROOMY)
    assert stream.tpot == pytest.approx(closed.tpot, rel=0.02)
    assert stream.request_rate == closed.request_rate


def test_waits_grow_without_bound_towards_saturation(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    limits = ServingLimits(max_sequences=256)
    most = predict_together(timer, make_workload(rate=1e4), limits=limits)
    assert most.saturated and most.ttft == float("inf")
    below = predict_together(timer, make_workload(rate=0.9 * most.request_rate), limits=limits)
    assert not below.saturated and below.ttft < 1
    assert most.request_rate < 1e4


def test_a_small_cache_makes_clients_queue(timer: StepTimer, make_workload: MakeWorkload) -> None:
    small = ServingLimits(kv_tokens=16 * 1250)
    found = predict_together(timer, make_workload(concurrency=64), limits=small)
    fitting = predict_together(timer, make_workload(concurrency=16), limits=ROOMY)
    assert found.saturated
    assert found.tpot == pytest.approx(fitting.tpot, rel=0.01)
    assert found.request_rate == pytest.approx(fitting.request_rate, rel=0.01)
    assert found.ttft - fitting.ttft == pytest.approx(48 / fitting.request_rate, rel=0.01)


def test_workers_share_the_requests(timer: StepTimer, make_workload: MakeWorkload) -> None:
    one = predict_together(timer, make_workload(concurrency=32), limits=ROOMY)
    four = predict_together(timer, make_workload(concurrency=128), limits=ROOMY, num_workers=4)
    assert four.ttft == one.ttft and four.tpot == one.tpot
    assert four.request_rate == pytest.approx(4 * one.request_rate)


def test_idle_workers_do_not_serve(timer: StepTimer, make_workload: MakeWorkload) -> None:
    one = predict_together(timer, make_workload(concurrency=1), limits=ROOMY)
    four = predict_together(timer, make_workload(concurrency=1), limits=ROOMY, num_workers=4)
    assert four.request_rate == pytest.approx(one.request_rate)
    assert four.utilisation["both"] == 0.25


def test_percentiles_lie_above_the_median(timer: StepTimer, make_workload: MakeWorkload) -> None:
    workload = make_workload(concurrency=128)
    for percentile in (0.9, 0.99):
        found = predict_together(
            timer, workload, limits=ROOMY, objective=Objective(percentile=percentile)
        )
        assert found.ttft_tail > found.ttft and found.tpot_tail > found.tpot
    median = predict_together(timer, workload, limits=ROOMY, objective=Objective(percentile=0.5))
    assert median.ttft_tail == median.ttft and median.tpot_tail == median.tpot


def test_cached_prompts_and_speculation_shorten(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    plain = predict_together(timer, make_workload(concurrency=64), limits=ROOMY)
    cached = predict_together(timer, make_workload(concurrency=64, cached_share=0.9), limits=ROOMY)
    assert cached.ttft < plain.ttft and cached.tpot < plain.tpot
    doubled = predict_together(
        timer, make_workload(concurrency=64, tokens_per_step=2.0), limits=ROOMY
    )
    assert plain.tpot / 2 < doubled.tpot < plain.tpot


def test_an_opening_burst_waits_for_half_of_all_prompts(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    burst = opening_burst(timer.seconds, request_shape(make_workload()), 100, ROOMY)
    assert burst == pytest.approx(50 * 1000 * 20e-6, rel=0.15)


def test_a_lone_prompt_leaves_the_other_attention_groups_idle(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    grouped = ServingLimits(num_groups=8)
    one, many = (
        predict_together(timer, make_workload(rate=0.01), limits=limits)
        for limits in (ROOMY, grouped)
    )
    prefill = timer.seconds(StepShape(prefill_tokens=8 * 1000, decode_sequences=0.01))
    assert many.ttft == pytest.approx(prefill, rel=0.05)
    assert many.ttft > 3 * one.ttft


def test_prompts_in_every_attention_group_waste_nothing(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    crowd = make_workload(output_tokens=101, concurrency=1000)
    one, many = (
        predict_together(timer, crowd, limits=ServingLimits(num_groups=groups)) for groups in (1, 8)
    )
    assert many.request_rate == pytest.approx(one.request_rate, rel=1e-2)
