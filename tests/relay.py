"""A link between two ends that can be cut: they hear nothing more, and nothing is closed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay:
    """
    Attributes:
        port: of 127.0.0.1; who calls there is connected to the target.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._is_cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut.set()

    def mend(self) -> None:
        """For those who call from now on."""
        self._is_cut.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += (near, far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._is_cut.is_set():
                    sink.sendall(data)
        # Also where the source was closed with something unread, which resets it.
        if not self._is_cut.is_set():
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(target: tuple[str, int]) -> Iterator[Relay]:
    opened = Relay(target)
    try:
        yield opened
    finally:
        opened.close()
