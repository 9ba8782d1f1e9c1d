"""The link between two hosts is cut, of which neither is plan rank 0's: the others go on soon."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import stream_client
from network_hosts import HERE, Hosts
from switched_hosts import SwitchedHosts, open_switched_hosts
from world_runs import Worlds, range_of

# A silence of 2 s counts as a loss; the rest is for a crowded machine.
LOSS_SECONDS = 6.0
POOLS = [
    ("front", 1, "both", [range_of(0, 8)]),
    ("far", 1, "experts", [range_of(4, 10)]),
    ("farther", 1, "experts", [range_of(8, 12)]),
]

pytestmark = pytest.mark.slow


@pytest.fixture
def switched() -> Iterator[SwitchedHosts]:
    yield from open_switched_hosts()


def test_a_link_between_two_others_is_cut_in_mid_stream(
    switched: SwitchedHosts, worlds: Worlds, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of all hosts\n")
    url, (front, far, farther) = worlds.start(
        POOLS,
        [partial(Hosts.on, name) for name in switched.names],
        world={"address": f"{HERE}:29557", "secret": str(secret)},
    )
    with stream_client.start(switched.names[0], url) as client:
        expected, _ = client.communicate(timeout=60.0)
    with stream_client.start(switched.names[0], url) as client:
        started = time.monotonic()
        switched.cut(1, 2)
        while "lost are 2" not in front.errors:
            assert time.monotonic() - started < LOSS_SECONDS, front.errors
            time.sleep(0.02)
        # It was a silence that told of it, and no closed connection.
        assert time.monotonic() - started > 1.5
        answer, _ = client.communicate(timeout=60.0)
    assert json.loads(answer) == json.loads(expected)
    assert farther.wait_for_end(30.0) != 0
    assert "counts this rank's mpirun as lost" in farther.errors
    assert far.process.poll() is None
