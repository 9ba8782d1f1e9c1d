"""Requests that a rank lost: what is computed, sent and counted a second time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from moe_placement.simulator.deployment import SimulatedLink
from moe_placement.simulator.from_timers import apart, together
from moe_placement.simulator.incidents import Failure
from moe_placement.simulator.live_request import LiveRequest
from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.simulation import simulate

Make = Callable[..., Any]


def test_a_cache_that_a_decode_worker_lost_is_computed_and_sent_anew(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    link = SimulatedLink(name="network", bandwidth=1e6)
    prefill, decode = make_timer(0.1), make_timer(0.02)
    pairs = apart(
        prefill, decode, make_limits(), num_decode=2, link=link, kv_bytes_per_token=1000.0
    )
    # The first token at 0.1 s, its cache at 0.2 s; two more come before the third step is lost.
    failed = replace(pairs, failures=(Failure(worker=1, at=0.25),))
    result = simulate(failed, make_requests(1, 100, 8), seed=0)
    assert (result.num_finished, result.num_resubmitted) == (1, 1)
    assert result.link_bytes == {"network": (100 + 103) * 1000.0}
    again = 0.25 + 0.1 + 0.103
    assert result.end_to_end.mean == pytest.approx(again + 4 * 0.02)
    # The prefill's token comes at 0.35 s, the next one behind the second transfer.
    assert result.inter_token.largest == pytest.approx(0.103 + 0.02)


def test_what_a_dead_rank_counted_stays_counted(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    failure = Failure(worker=0, at=0.055, until=1.0)
    failed = replace(together(make_timer(0.01), make_limits()), failures=(failure,))
    result = simulate(failed, make_requests(1, 100, 8), seed=0)
    assert result.num_prompt_tokens == 100 + 105


def test_the_block_that_a_prompt_does_not_fill_is_another_one_with_its_answer() -> None:
    request = SimulatedRequest(
        request_id=0, prompt_tokens=100, output_tokens=8, blocks=(1, 2), block_tokens=64
    )
    live = LiveRequest(request, request)
    assert live.next_part(8) is request and live.next_part(1).blocks == (1, 2)
    live.num_tokens = 5
    part = live.next_part(3)
    assert (part.prompt_tokens, part.output_tokens, part.blocks) == (105, 3, (1,))


def test_answers_of_one_token_have_no_time_between_tokens(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    one, many = make_requests(2, 100, 5)
    requests = [replace(one, output_tokens=1), many]
    result = simulate(together(make_timer(0.01), make_limits()), requests, seed=0)
    assert (result.ttft.count, result.tpot.count) == (2, 1)
    assert result.tpot.mean == pytest.approx(0.01)
