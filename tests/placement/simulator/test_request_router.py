"""Where simulated requests go."""

import pytest
from moe_placement.simulator.router import Router, Target
from moe_placement.simulator.scheduler import RefusedError, SimulatedRequest


def targets(*weights: float, max_live: int = 0) -> list[Target]:
    return [Target(index, 0, weight, max_live) for index, weight in enumerate(weights)]


def request(number: int, *blocks: int, prompt: int = 2048) -> SimulatedRequest:
    return SimulatedRequest(request_id=number, prompt_tokens=prompt, output_tokens=9, blocks=blocks)


def picks(router: Router, *requests: SimulatedRequest) -> list[int]:
    picked = [router.pick(one) for one in requests]
    return [target.worker for target in picked if target is not None]


def test_the_least_loaded_rank_gets_the_next_request() -> None:
    router = Router(targets(1.0, 1.0, 2.0), "least_loaded")
    assert sorted(picks(router, *(request(number) for number in range(8)))) == [
        *(0, 0),
        *(1, 1),
        *(2, 2, 2, 2),
    ]
    router.targets[1].num_live = 0
    assert picks(router, request(9)) == [1]


def test_turns_go_round() -> None:
    router = Router(targets(1.0, 1.0, 1.0), "round_robin")
    assert picks(router, *(request(number) for number in range(5))) == [0, 1, 2, 0, 1]


def test_a_known_prefix_outweighs_some_load() -> None:
    router = Router(targets(1.0, 1.0), "prefix")
    assert picks(router, request(0, 7, 8), request(1, 5)) == [0, 1]
    # A block of 512 tokens is worth two more running requests, and no third.
    assert picks(router, *(request(number, 5) for number in range(2, 6))) == [1, 1, 0, 0]
    assert picks(router, request(6, 7, 8)) == [0]


def test_only_leading_blocks_count_and_only_together() -> None:
    router = Router(targets(1.0, 1.0), "prefix")
    assert picks(router, request(0, 1, 2), request(1, 9, 2)) == [0, 1]
    # The first rank has block 1 but not 3; block 2 behind another first block is no use.
    assert picks(router, request(2, 1, 3), request(3, 4, 2)) == [0, 1]


def test_who_is_away_gets_nothing_and_a_full_house_refuses() -> None:
    router = Router(targets(1.0, 1.0, max_live=2), "prefix")
    router.targets[0].away = 1
    assert picks(router, request(0), request(1)) == [1, 1]
    with pytest.raises(RefusedError, match="found all 1 ranks full; send fewer, or raise"):
        router.pick(request(2))
    router.targets[1].away = 1
    assert router.pick(request(2)) is None
