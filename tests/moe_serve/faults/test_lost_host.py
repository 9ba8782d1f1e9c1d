"""A host goes away in the middle of streams: its wire is pulled, and all on it dies."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import stream_client
from fault_runs import Run
from network_hosts import HERE, Hosts
from world_runs import Worlds, kill, range_of, tokens

# A silence of 2 s counts as a loss; the rest is for a crowded machine.
PAUSE_SECONDS = 25.0

pytestmark = pytest.mark.slow


def test_a_host_goes_away_in_mid_stream(
    hosts: Hosts, worlds: Worlds, tmp_path: Path, start_command: Callable[[list[str]], Run]
) -> None:
    pools = [("front", 1, "both", [range_of(0, 8)]), ("far", 1, "experts", [range_of(6, 12)])]
    url, runs = worlds.start(pools)
    expected = tokens(url)
    for run in runs:
        run.kill()
    secret = tmp_path / "secret"
    secret.write_text("of both hosts\n")
    url, (_, far) = worlds.start(
        pools,
        [partial(hosts.on, hosts.here), partial(hosts.on, hosts.there)],
        world={"address": f"{HERE}:29555", "secret": str(secret)},
    )
    with stream_client.start(hosts.here, url) as client:
        parted = time.monotonic()
        hosts.cut()
        kill(far)
        answer, _ = client.communicate(timeout=60.0)
    assert 2.0 < time.monotonic() - parted < PAUSE_SECONDS
    assert json.loads(answer) == expected
