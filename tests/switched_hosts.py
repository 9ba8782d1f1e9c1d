"""Three hosts on one machine: network namespaces on a switch that can part any two of them."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from network_hosts import HERE


class SwitchedHosts:
    """
    Attributes:
        names: of the namespaces; the first one's address is HERE.
    """

    def __init__(self) -> None:
        self._switch = f"moe{os.getpid()}s"
        self.names = tuple(f"moe{os.getpid()}h{number}" for number in range(3))

    def join(self) -> None:
        self._ip("netns", "add", self._switch)
        self._ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        self._ip("-n", self._switch, "link", "set", "switch", "up")
        network, _, first = HERE.rpartition(".")
        for number, name in enumerate(self.names):
            port = f"port{number}"
            self._ip("netns", "add", name)
            wire = ["link", "add", "wire", "netns", name, "type", "veth"]
            self._ip(*wire, "peer", "name", port, "netns", self._switch)
            self._ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
            address = f"{network}.{int(first) + number}/24"
            self._ip("-n", name, "address", "add", address, "dev", "wire")
            for device in ("wire", "lo"):
                self._ip("-n", name, "link", "set", device, "up")

    def cut(self, *numbers: int) -> None:
        """The links between these hosts, and no other one."""
        for number in numbers:
            port = ["link", "set", f"port{number}", "type", "bridge_slave", "isolated", "on"]
            self._ip("-n", self._switch, *port)

    def part(self) -> None:
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], capture_output=True, check=True)


def open_switched_hosts() -> Iterator[SwitchedHosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    hosts = SwitchedHosts()
    try:
        hosts.join()
    except subprocess.CalledProcessError as error:
        hosts.part()
        pytest.skip(f"no switched namespaces here: {error.stderr.decode().strip()}")
    try:
        yield hosts
    finally:
        hosts.part()
