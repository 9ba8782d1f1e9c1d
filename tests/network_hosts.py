"""Two hosts on one machine: network namespaces that only a wire joins."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

HERE, THERE = "192.0.2.1", "192.0.2.2"
CLIENT = """
import httpx, json, sys
method, url, body = sys.argv[1:]
answer = httpx.request(method, url, json=json.loads(body), timeout=60)
print(answer.raise_for_status().text)
"""


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

    @staticmethod
    def on(name: str, *words: str) -> list[str]:
        """A command that runs on one side."""
        return ["ip", "netns", "exec", name, *words]

    def shape(self, bytes_per_second: float, seconds: float) -> float:
        """Give the wire, both ways, a rate and a latency.

        Returns:
            The latency that it has: none where this kernel can only bound the rate.
        """
        rate = f"{bytes_per_second * 8:.0f}bit"
        delayed = ["netem", "delay", f"{seconds * 1e6:.0f}us", "rate", rate, "limit", "100000"]
        try:
            self._shape_both_ends(*delayed)
        except subprocess.CalledProcessError:
            self._shape_both_ends("tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
            return 0.0
        return seconds

    def _shape_both_ends(self, *words: str) -> None:
        for name in (self.here, self.there):
            shape = ["tc", "-n", name, "qdisc", "replace", "dev", "wire", "root", *words]
            subprocess.run(shape, capture_output=True, check=True)

    def cut(self) -> None:
        """The wire, as if it were pulled."""
        self._ip("-n", self.here, "link", "set", "wire", "down")

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


def open_hosts() -> Iterator[Hosts]:
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
