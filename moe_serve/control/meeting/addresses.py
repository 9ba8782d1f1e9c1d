"""Where a rank's link listens, and under which of its host's addresses others reach it."""

import socket
from urllib.parse import urlsplit

import psutil

from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.errors import BringUpError

_LOOPBACK = "127.0.0.1"
_PROBE_SECONDS = 2.0


def bind_address(launch: LaunchedWorld) -> str:
    """Loopback where all ranks, of whichever mpirun, are on one host."""
    return _LOOPBACK if launch.size == launch.local_size else "0.0.0.0"


def reachable_addresses(port: int, launch: LaunchedWorld) -> str:
    """This rank's endpoints, by comma; a host may have networks that the others do not share."""
    return ",".join(f"tcp://{host}:{port}" for host in _host_addresses(launch))


def host_address(launch: LaunchedWorld) -> str:
    """One address of this host at which the other ranks reach it."""
    return _host_addresses(launch)[0]


def _host_addresses(launch: LaunchedWorld) -> list[str]:
    if launch.size == launch.local_size:
        return [_LOOPBACK]
    hosts = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    # Where mpiruns met, the others have a way to for certain.
    hosts.sort(key=lambda host: host != launch.address)
    if not hosts:
        raise BringUpError(
            f"rank {launch.rank}: the ranks span hosts, and this host has no IPv4 address "
            "but loopback; give it a network"
        )
    return hosts


def first_reachable(endpoints: str) -> str:
    """The first of the endpoints that accepts a connection.

    Raises:
        BringUpError: none does.
    """
    for endpoint in endpoints.split(","):
        parts = urlsplit(endpoint)
        try:
            with socket.create_connection((parts.hostname, parts.port), _PROBE_SECONDS):
                return endpoint
        except OSError:
            continue
    raise BringUpError(
        f"none of a rank's addresses ({endpoints}) can be reached from where it is needed; "
        "open the network between the hosts"
    )
