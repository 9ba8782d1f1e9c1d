"""TCP connections made with patience: a deadline and a control flag are watched all the while."""

import select
import socket
import time
from collections.abc import Callable

_TURN_SECONDS = 0.05
# So many may be lost before a connection is given up.
_PROBES = 10


class GivenUpError(TimeoutError):
    """The deadline has passed, or control said stop."""


class Patience:
    """
    Args:
        seconds: from now on, for all waits together.
        should_stop: the control flag; true ends a wait at once.
    """

    def __init__(self, seconds: float, should_stop: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._should_stop = should_stop

    def briefly(self, seconds: float) -> "Patience":
        """With the same control flag, for so many seconds and no longer than this one."""
        left = self._end - time.monotonic()
        return Patience(max(0.0, min(seconds, left)), self._should_stop)

    def turn(self) -> float:
        """For how long to wait before asking again.

        Raises:
            GivenUpError: not at all.
        """
        if self._should_stop():
            raise GivenUpError("told to stop waiting")
        left = self._end - time.monotonic()
        if left <= 0:
            raise GivenUpError(f"no answer within {self._seconds:g} s")
        return min(left, _TURN_SECONDS)

    def pause(self, seconds: float) -> None:
        """
        Raises:
            GivenUpError: no patience is left.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.turn())

    def readable(self, connection: socket.socket) -> None:
        """Return once there is something to read, or to accept.

        Raises:
            GivenUpError: not in time.
        """
        while not select.select([connection], [], [], self.turn())[0]:
            pass

    def readable_within(self, connection: socket.socket, seconds: float) -> bool:
        """Whether there is something to read, or to accept, within so many seconds.

        Raises:
            GivenUpError: no patience is left.
        """
        end = time.monotonic() + seconds
        while not select.select([connection], [], [], self.turn())[0]:
            if time.monotonic() > end:
                return False
        return True

    def writable(self, connection: socket.socket) -> None:
        """Return once something can be sent, or a connection is made or refused.

        Raises:
            GivenUpError: not in time.
        """
        while not select.select([], [connection], [], self.turn())[1]:
            pass


def connect(host: str, port: int, patience: Patience) -> socket.socket:
    """
    Raises:
        GivenUpError: not in time.
        OSError: refused, or there is no way to that host.
    """
    found = socket.getaddrinfo(host, port, _family(host), socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        try:
            connection.connect(address)
        except BlockingIOError:
            patience.writable(connection)
        if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, "cannot connect")
        connection.setblocking(True)
    except BaseException:
        connection.close()
        raise
    return connection


def keep_alive(connection: socket.socket, seconds: float) -> None:
    """Have a connection break on which nothing is sent, about so long after the way to the other
    end was cut; the kernels at both ends see to it, however busy the processes are."""
    pause = max(1, round(seconds / _PROBES))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def listen(host: str, port: int = 0) -> socket.socket:
    """A listening socket at one of this host's addresses.

    Raises:
        OSError: the address is taken, or not this host's.
    """
    return socket.create_server((host, port), family=_family(host), backlog=1024)


def own_address(host: str, port: int) -> str:
    """This host's address on the way to another one; sends nothing.

    Raises:
        OSError: there is no way to that host.
    """
    found = socket.getaddrinfo(host, port, _family(host), socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _family(host: str) -> socket.AddressFamily:
    """A name means an IPv4 address, on the listening side and on the calling one."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT.

    Raises:
        ValueError: neither.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
