import math
from collections.abc import Callable

import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.step_timer import StepTimer
from moe_placement.serving.apart import predict_apart
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.tail import tail_wait
from moe_placement.serving.together import predict_together
from moe_placement.serving.workload import Objective, Workload

MakeWorkload = Callable[..., Workload]
ROOMY = ServingLimits()


def test_one_client_has_a_prefill_and_undisturbed_steps(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    found = predict_apart(timer, 1, timer, 1, make_workload(concurrency=1), limits=ROOMY)
    assert found.ttft == pytest.approx(timer.seconds(StepShape(prefill_tokens=1000)))
    assert found.tpot == pytest.approx(timer.seconds(StepShape(decode_sequences=1)), rel=0.01)
    assert not found.saturated


def test_prefill_elsewhere_leaves_steps_short(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    workload = make_workload(concurrency=64)
    apart = predict_apart(timer, 1, timer, 1, workload, limits=ROOMY)
    assert apart.tpot < predict_together(timer, workload, limits=ROOMY).tpot


@pytest.mark.parametrize("clients", [4, 64, 1024])
def test_littles_law_holds(timer: StepTimer, make_workload: MakeWorkload, clients: int) -> None:
    found = predict_apart(
        timer,
        2,
        timer,
        3,
        make_workload(concurrency=clients),
        limits=ROOMY,
        objective=Objective(percentile=0.5),
    )
    there = found.request_rate * 500 * found.tpot
    assert there <= clients
    assert max(found.utilisation.values()) <= 1
    if found.utilisation["prefill"] < 0.3:
        assert found.request_rate * (found.ttft + 500 * found.tpot) == pytest.approx(
            clients, rel=0.01
        )


def test_prefill_workers_bound_the_rate(timer: StepTimer, make_workload: MakeWorkload) -> None:
    slot = timer.seconds(StepShape(prefill_tokens=8192)) * 1000 / 8192
    crowd = make_workload(concurrency=4000)
    for num_prefill in (1, 2):
        found = predict_apart(timer, num_prefill, timer, 8, crowd, limits=ROOMY)
        assert found.request_rate == pytest.approx(num_prefill / slot, rel=0.01)
        assert found.request_rate * found.ttft == pytest.approx(
            4000 - found.request_rate * 500 * found.tpot, rel=0.01
        )


def test_a_full_decode_pool_makes_requests_queue(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    small = ServingLimits(max_sequences=8)
    found = predict_apart(timer, 2, timer, 2, make_workload(concurrency=64), limits=small)
    assert found.saturated
    step = timer.seconds(StepShape(decode_sequences=8))
    assert found.tpot == pytest.approx(step, rel=0.01)
    assert found.request_rate == pytest.approx(16 / (500 * step), rel=0.01)


def test_the_transfer_is_added_to_the_first_token(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    workload = make_workload(rate=0.5)
    near = predict_apart(timer, 1, timer, 1, workload, limits=ROOMY)
    far = predict_apart(timer, 1, timer, 1, workload, limits=ROOMY, transfer_seconds_per_token=1e-4)
    assert far.ttft - near.ttft == pytest.approx(0.1)


def test_an_open_stream_saturates_where_prefill_or_decoding_does(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    limits = ServingLimits(max_sequences=256)
    found = predict_apart(timer, 1, timer, 1, make_workload(rate=1e4), limits=limits)
    assert found.saturated and found.ttft == math.inf
    below = make_workload(rate=0.9 * found.request_rate)
    fine = predict_apart(timer, 1, timer, 1, below, limits=limits)
    assert not fine.saturated and fine.ttft < 1
    assert fine.request_rate == below.rate


def test_a_prompt_alone_among_groups_takes_as_long_as_one_in_each(
    timer: StepTimer, make_workload: MakeWorkload
) -> None:
    one = predict_apart(timer, 1, timer, 1, make_workload(concurrency=1), limits=ROOMY)
    eight = predict_apart(
        timer, 1, timer, 1, make_workload(concurrency=1), limits=ROOMY, prefill_groups=8
    )
    assert eight.ttft == pytest.approx(timer.seconds(StepShape(prefill_tokens=8000)))
    assert one.ttft < eight.ttft


def test_the_tail_of_a_wait_keeps_its_mean() -> None:
    mean, busy = 0.2, 0.4
    points = [(place + 0.5) / 20000 for place in range(20000)]
    waits = [tail_wait(mean, busy, point) for point in points]
    assert sum(waits) / len(waits) == pytest.approx(mean, rel=0.01)
    assert waits == sorted(waits)
    assert waits[int(0.59 * 20000)] == 0
    assert tail_wait(5.0, 1.0, 0.5, deviation=0.1) == pytest.approx(5.0)
    assert tail_wait(mean, busy, 1.0) == tail_wait(math.inf, busy, 0.1) == math.inf
