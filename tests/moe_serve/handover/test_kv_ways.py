"""How keys and values cross: as the link between two pools says, and as slowly where emulated."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from kv_ends import hello

from moe_serve.config.tree import Config, EmulationConfig, LinkConfig, ModelConfig, PoolConfig
from moe_serve.kv_ways import KvEnd, ways

PREFILL, NEAR, FAR = 0, (1, 2), 3
CONFIG = Config(
    models=(ModelConfig(path="demo"),),
    pools=(
        PoolConfig(name="prefill", device="emulated", role="prefill"),
        PoolConfig(name="near", device="cpu", role="decode", ranks=2),
        PoolConfig(name="far", device="cpu", role="decode"),
    ),
    links=(
        LinkConfig(between=("near", "prefill"), bandwidth=1000.0, latency=0.5, wire="int8"),
        LinkConfig(between=("near", "far"), bandwidth=1.0),
    ),
    emulation=EmulationConfig(time_scale=4.0),
)


@pytest.fixture
def ends() -> Iterator[dict[int, KvEnd]]:
    """Of all that decode, each where it listens."""
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in (*NEAR, FAR)
        ]
        yield {
            number: KvEnd(hello(f"pool:{number}"), f"tcp://127.0.0.1:{each.getsockname()[1]}")
            for number, each in zip((*NEAR, FAR), listeners, strict=True)
        }


def test_a_link_says_type_and_pace_for_all_ranks_of_its_pool(ends: dict[int, KvEnd]) -> None:
    first, second, far = ways(CONFIG, PREFILL, ends).values()
    assert [f"tcp://{way.address}" for way in (first, second)] == [
        ends[number].addresses for number in NEAR
    ]
    assert first.wire_type == second.wire_type == "int8"
    assert first.declared is second.declared and first.declared is not None
    # 4 times as slow, and 4 times as late.
    assert first.declared.arrival(0.0, 1000) == pytest.approx(4 * (1.0 + 0.5))
    assert (far.wire_type, far.declared) == ("", None)


def test_real_devices_take_the_time_that_they_take(ends: dict[int, KvEnd]) -> None:
    real = replace(CONFIG.pools[0], device="cpu")
    config = replace(CONFIG, pools=(real, *CONFIG.pools[1:]))
    near = ways(config, PREFILL, ends)["pool:1"]
    assert (near.wire_type, near.declared) == ("int8", None)
