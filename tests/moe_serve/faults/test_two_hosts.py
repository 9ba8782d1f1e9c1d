"""One mpirun over two hosts: network namespaces that only a wire joins."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fault_runs import Run, serve_command
from live_server import mpirun

HERE, THERE = "192.0.2.1", "192.0.2.2"
# As over ssh: the host's address, then a line for its shell. Hosts have names of their own.
AGENT = """#!/bin/sh
shift
exec ip netns exec {there} unshare --uts sh -c "hostname {there}; $*"
"""
CLIENT = """
import httpx, json, sys
method, url, body = sys.argv[1:]
answer = httpx.request(method, url, json=json.loads(body), timeout=60)
print(answer.raise_for_status().text)
"""
PROMPTS = {
    "prompt": [[5, 6, 7], [8, 9, 10, 11], [12, 13], [14, 15, 16, 17, 18]],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "logprobs": 0,
}

pytestmark = pytest.mark.slow


class Hosts:
    """Two namespaces, `here` and `there`."""

    def __init__(self) -> None:
        self.here, self.there = (f"moe{os.getpid()}{end}" for end in "ab")

    def join(self) -> None:
        self._ip("netns", "add", self.here)
        self._ip("netns", "add", self.there)
        wire = ["link", "add", "wire", "netns", self.here, "type", "veth"]
        self._ip(*wire, "peer", "name", "wire", "netns", self.there)
        for name, address in ((self.here, HERE), (self.there, THERE)):
            self._ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            self._ip("-n", name, "link", "set", "wire", "up")
            self._ip("-n", name, "link", "set", "lo", "up")

    def part(self) -> None:
        for name in (self.here, self.there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def run(self, *words: str) -> str:
        """What a command prints, run on this side."""
        command = ["ip", "netns", "exec", self.here, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def request(self, method: str, url: str, body: object) -> str:
        return self.run(sys.executable, "-c", CLIENT, method, url, json.dumps(body))

    def num_bytes_over_wire(self) -> int:
        return int(self.run("cat", "/sys/class/net/wire/statistics/rx_bytes"))

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], capture_output=True, check=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, iproute2 and unshare")
    hosts = Hosts()
    try:
        hosts.join()
    except subprocess.CalledProcessError as error:
        hosts.part()
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        yield hosts
    finally:
        hosts.part()


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
