"""What a result says of its own figures."""

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from moe_placement.serving.workload import Objective
from moe_placement.simulator.deployment import SimulatedLink, Traffic
from moe_placement.simulator.distribution import distribution_of
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.simulation import simulate

Make = Callable[..., Any]


def test_percentiles_are_values_that_came() -> None:
    values = np.arange(100, 0, -1)
    found = distribution_of(values)
    assert (found.p50, found.p90, found.p95, found.p99) == (50, 90, 95, 99)
    assert (found.count, found.mean, found.largest) == (100, 50.5, 100)


def test_weights_count_values_so_often() -> None:
    random = np.random.default_rng(0)
    values, weights = random.normal(size=50), random.integers(0, 9, 50)
    weighted, repeated = distribution_of(values, weights), distribution_of(values.repeat(weights))
    assert astuple(weighted) == pytest.approx(astuple(repeated))


def test_nothing_has_no_percentiles() -> None:
    assert distribution_of([]).count == 0 and distribution_of([1.0], [0]).p99 == 0.0


def test_goodput_counts_those_within_both_levels(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    # One at a time: each request waits for those before it.
    deployment = together(make_timer(0.01), make_limits(max_sequences=1))
    result = simulate(deployment, make_requests(10, output=11), seed=0)
    assert result.seconds == pytest.approx(10 * 0.11)
    assert result.attainment(Objective(ttft=0.3)) == pytest.approx(0.3)
    assert result.goodput(Objective(ttft=0.3)) == pytest.approx(3 / 1.1)
    assert result.goodput(Objective(ttft=0.3, tpot=0.009)) == 0.0
    assert result.goodput(Objective()) == pytest.approx(result.request_rate)
    assert result.throughput == pytest.approx(110 / 1.1)
    prediction = result.prediction(Objective(percentile=0.9))
    assert prediction.ttft_tail == pytest.approx(0.11 * 8 + 0.01)
    assert prediction.utilisation == {"both": pytest.approx(1.0)}


def test_queues_are_looked_at_again_and_again(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits(max_sequences=2))
    sampled = replace(deployment, sample_seconds=0.055)
    queues = simulate(sampled, make_requests(6, output=10), seed=0).queues
    seen = [(sample.num_waiting, sample.num_running) for sample in queues]
    assert seen == [(6, 0), (4, 2), (2, 2), (2, 2), (0, 2), (0, 2), (0, 0)]
    assert [sample.seconds for sample in queues[:3]] == pytest.approx([0.0, 0.055, 0.11])


def test_dispatch_is_counted_on_its_link(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits())
    worker = replace(deployment.workers[0], traffic=(Traffic("bridge", 3.0),))
    with_link = replace(deployment, workers=(worker,), links=(SimulatedLink(name="bridge"),))
    result = simulate(with_link, make_requests(2, prompt=100, output=5), seed=0)
    # The last token of each answer is never computed.
    assert result.link_bytes == {"bridge": 3.0 * 2 * 104}


def test_hits_show_in_the_hit_rate(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    requests = make_requests(4, prompt=128, output=2, gap=1.0, blocks=(1,), block_tokens=64)
    result = simulate(together(make_timer(0.01), make_limits()), requests, seed=0)
    assert result.prefix_hit_rate == pytest.approx(3 * 64 / (4 * 128))


def test_times_between_tokens_add_up_to_each_answer(make_timer: Make, make_limits: Make) -> None:
    requests = [
        SimulatedRequest(request_id=number, prompt_tokens=40, output_tokens=90 + number)
        for number in range(8)
    ]
    limits = make_limits(num_pages=30)
    result = simulate(together(make_timer(0.01, per_token=1e-4), limits), requests, seed=0)
    assert result.num_preemptions > 0 and result.num_finished == 8
    answers = (result.times.end_to_end_R - result.times.ttft_R).sum()
    assert result.inter_token.count == sum(one.output_tokens - 1 for one in requests)
    assert result.inter_token.count * result.inter_token.mean == pytest.approx(answers)


def test_tokens_that_come_together_share_their_step(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    limits = make_limits(tokens_per_step=2.0, decode_tokens=2)
    result = simulate(together(make_timer(0.01), limits), make_requests(1, output=11), seed=0)
    assert result.end_to_end.mean == pytest.approx(0.01 + 5 * 0.01)
    assert (result.inter_token.count, result.inter_token.largest) == (10, pytest.approx(0.005))
