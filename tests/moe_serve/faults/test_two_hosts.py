"""One mpirun over two hosts: network namespaces that only a wire joins."""

import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fault_runs import Run, serve_command
from live_server import mpirun
from network_hosts import HERE, THERE, Hosts

# As over ssh: the host's address, then a line for its shell. Hosts have names of their own.
AGENT = """#!/bin/sh
shift
exec ip netns exec {there} unshare --uts sh -c "hostname {there}; $*"
"""
PROMPTS = {
    "prompt": [[5, 6, 7], [8, 9, 10, 11], [12, 13], [14, 15, 16, 17, 18]],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "logprobs": 0,
}

pytestmark = pytest.mark.slow


@pytest.fixture
def run_over_both(
    hosts: Hosts,
    two_ranks: dict[str, Any],
    tmp_path: Path,
    write_config: Callable[[Mapping[str, Any]], Path],
    start_command: Callable[[list[str]], Run],
) -> Run:
    """Rank 0 here, rank 1 there."""
    agent = tmp_path / "agent.sh"
    agent.write_text(AGENT.format(there=hosts.there))
    agent.chmod(0o755)
    launcher, *words = mpirun(2, *serve_command(write_config(two_ranks)))
    options = ["--prtemca", "plm_ssh_agent", str(agent), "--host", f"{HERE}:1,{THERE}:1"]
    return start_command(["ip", "netns", "exec", hosts.here, launcher, *options, *words])


def choices(answer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer)["choices"]
    return found


def test_two_hosts_serve_like_one(
    hosts: Hosts,
    run_over_both: Run,
    start: Callable[..., Run],
    two_ranks: dict[str, Any],
) -> None:
    url = run_over_both.wait_until_ready()
    before = hosts.num_bytes_over_wire()
    answer = hosts.request("POST", f"{url}/v1/completions", PROMPTS)
    # Each token's way to the other rank's experts and back, in each layer.
    assert hosts.num_bytes_over_wire() - before > 4 * 24 * 3 * 96 * 4
    time.sleep(1.0)
    metrics = hosts.request("GET", f"{url}/metrics", None)
    for rank in range(2):
        assert f'moe_serve_generated_tokens_total{{rank="{rank}"}} 48.0' in metrics
    run_over_both.process.send_signal(signal.SIGUSR1)
    assert run_over_both.wait_for_end(15.0) == 0, run_over_both.errors
    url = start(two_ranks).wait_until_ready()
    expected = httpx.post(f"{url}/v1/completions", json=PROMPTS, timeout=60)
    assert choices(answer) == choices(expected.text)


def test_a_rank_that_dies_on_the_other_host_ends_the_job(run_over_both: Run) -> None:
    run_over_both.wait_until_ready()
    killed = time.monotonic()
    run_over_both.rank(1).kill()
    assert run_over_both.wait_for_end(5.0) != 0
    assert time.monotonic() - killed < 5.0
