"""Prefill and decode workers of their own, with KV caches on a link between them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from moe_placement.simulator.deployment import (
    KvTransfer,
    SimulatedDeployment,
    SimulatedLink,
    SimulatedWorker,
    Traffic,
)
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.from_timers import apart, together
from moe_placement.simulator.simulation import simulate

Make = Callable[..., Any]

# A prompt of 100 tokens takes a tenth of a second.
LINK = SimulatedLink(name="network", bandwidth=1e6, latency=0.005)


def make_apart(make_timer: Make, limits: Any, **changes: Any) -> SimulatedDeployment:
    values = {"link": LINK, "kv_bytes_per_token": 1000.0}
    return apart(make_timer(0.1), make_timer(0.02), limits, **{**values, **changes})


@pytest.mark.parametrize(
    ("num_layers", "behind"),
    [(1, 0.105), (10, 0.015)],
)
def test_only_the_last_layer_is_sent_behind_the_prefill(
    make_timer: Make, make_limits: Make, make_requests: Make, num_layers: int, behind: float
) -> None:
    deployment = make_apart(make_timer, make_limits(), num_layers=num_layers)
    result = simulate(deployment, make_requests(1, 100, 6), seed=0)
    assert result.ttft.mean == pytest.approx(0.1)
    assert result.inter_token.largest == pytest.approx(behind + 0.02)
    assert result.end_to_end.mean == pytest.approx(0.1 + behind + 5 * 0.02)
    assert result.link_bytes == {"network": 100_000.0}
    assert result.num_finished == 1


def test_the_decode_worker_may_be_the_one_that_answers(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = make_apart(make_timer, make_limits())
    assert deployment.transfer is not None
    delayed = replace(deployment, transfer=replace(deployment.transfer, delays_first_token=True))
    result = simulate(delayed, make_requests(1, 100, 6), seed=0)
    assert result.ttft.mean == pytest.approx(0.205)
    assert result.inter_token.largest == pytest.approx(0.02)
    short = simulate(delayed, make_requests(1, 100, 1), seed=0)
    assert short.ttft.mean == pytest.approx(0.1) and short.link_bytes == {"network": 0.0}


def test_transfers_wait_for_each_other_on_a_link(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = make_apart(make_timer, make_limits(), num_prefill=2)
    result = simulate(deployment, make_requests(2, 100, 2), seed=0)
    # Both end their prefill at once; the second cache follows the first.
    gaps = sorted((result.times.end_to_end_R - result.times.ttft_R).tolist())
    assert gaps == pytest.approx([0.125, 0.225])


def test_layers_share_the_link_while_prefills_run(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    fast = replace(LINK, bandwidth=4e6, latency=0.0)
    deployment = make_apart(make_timer, make_limits(), num_prefill=2, link=fast, num_layers=10)
    result = simulate(deployment, make_requests(2, 100, 2), seed=0)
    # Each cache takes 0.025 s and both prefills 0.1 s: only the last layers are left behind them.
    gaps = sorted((result.times.end_to_end_R - result.times.ttft_R).tolist())
    assert gaps == pytest.approx([0.0225, 0.025 + 0.0175])


def test_a_cache_that_comes_later_than_its_prefill_shows_how_long_it_takes(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    slow = replace(LINK, bandwidth=1e5, latency=0.0)
    deployment = make_apart(make_timer, make_limits(), link=slow, num_layers=100)
    result = simulate(deployment, make_requests(1, 100, 2), seed=0)
    # A second on the link from the start of the prefill, and a step.
    assert result.end_to_end.mean == pytest.approx(1.0 + 0.02)


def test_apart_long_prompts_delay_no_decoding(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    def timer() -> Any:
        return make_timer(0.005, per_token=2e-4)

    limits = make_limits(max_tokens_per_step=2048, num_pages=10_000)
    requests = make_requests(60, prompt=900, output=200, gap=0.3)
    joined = simulate(together(timer(), limits, num_workers=2), requests, seed=0)
    separate = simulate(
        apart(timer(), timer(), limits, link=LINK, kv_bytes_per_token=1.0), requests, seed=0
    )
    assert joined.num_finished == separate.num_finished == 60
    assert joined.inter_token.largest > 10 * separate.inter_token.largest
    assert separate.tpot.p99 < joined.tpot.p50
    assert set(separate.utilisation) == {"prefill", "decode"}
    assert separate.utilisation_by_role["prefill"] == pytest.approx(
        60 * (0.005 + 900 * 2e-4) / separate.seconds
    )


def test_ranks_are_as_slow_as_the_slowest(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    def run(**changes: Any) -> float:
        worker = SimulatedWorker(
            pool="both",
            timer=make_timer(0.0, per_token=1e-4),
            limits=make_limits(),
            num_ranks=4,
            **changes,
        )
        deployment = SimulatedDeployment(workers=(worker,))
        return simulate(deployment, make_requests(1, 400, 1), seed=0).ttft.mean

    assert run() == pytest.approx(0.04)
    # One rank of four computes it all, which takes four times its part of an even step.
    alone = make_timer(0.0, per_token=0.25e-4)
    assert run(rank_timer=alone) == pytest.approx(0.04 + 3 * 0.01)
    # A rank that should have more, for it is faster, takes less longer; it gets the request.
    shares = {"rank_weights": (1.0, 1.0, 1.0, 5.0)}
    assert run(rank_timer=alone, **shares) == pytest.approx(0.04 + 0.01 * (8 / 1 - 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer": None}, "apart without a transfer; give one"),
        ({"links": ()}, "link 'network' is used but not given"),
        ({"workers": 1}, "need each other; give one of each role"),
        ({"links": (LINK, LINK)}, "link 'network' is given twice; keep one"),
        ({"sample_seconds": 0.0}, "sample_seconds is 0; it must be above 0"),
    ],
)
def test_deployments_that_make_no_sense_are_named(
    make_timer: Make, make_limits: Make, changes: dict[str, Any], message: str
) -> None:
    deployment = make_apart(make_timer, make_limits())
    if "workers" in changes:
        changes = {"workers": deployment.workers[:1]}
    with pytest.raises(SimulationError, match=message):
        replace(deployment, **changes)


def test_a_deployment_needs_prefill(make_timer: Make, make_limits: Make) -> None:
    decode = SimulatedWorker(pool="decode", role="decode", timer=make_timer(), limits=make_limits())
    transfer = KvTransfer(link="network", bytes_per_token=1.0)
    with pytest.raises(SimulationError, match="no worker does prefill"):
        SimulatedDeployment(workers=(decode,), links=(LINK,), transfer=transfer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KvTransfer(link="a", bytes_per_token=-1.0), "-1 bytes for link 'a'; give 0"),
        (lambda: Traffic("a", float("nan")), "nan bytes for link 'a'; give 0"),
        (
            lambda: KvTransfer(link="a", bytes_per_token=1.0, num_layers=0),
            "num_layers 0; it must be at least 1",
        ),
    ],
)
def test_bytes_that_cannot_be_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        make()


def test_short_prompts_are_computed_where_they_decode(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = make_apart(make_timer, make_limits())
    assert deployment.transfer is not None
    for most, ttft, num_bytes in ((99, 0.1, 100_000.0), (100, 0.02, 0.0)):
        transfer = replace(deployment.transfer, max_local_prefill=most)
        gated = replace(deployment, transfer=transfer)
        result = simulate(gated, make_requests(1, 100, 6), seed=0)
        assert result.ttft.mean == pytest.approx(ttft)
        assert result.link_bytes == {"network": num_bytes}
        assert result.num_finished == 1
