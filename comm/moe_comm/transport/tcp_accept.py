"""Takes calls at a listening socket for as long as it is there, whatever becomes of one of them."""

import logging
import socket
import threading
from collections.abc import Callable

from moe_comm.transport.tcp_connect import join_address

logger = logging.getLogger(__name__)

# What is lacking (file descriptors, threads) may be there again then.
_PAUSE_SECONDS = 0.5


class Reception:
    """
    Args:
        listener: its own from now on.
        take: gets each connection, and HOST:PORT of the caller, in a thread of its own.
        name: of the thread that takes calls.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket, str], None], name: str
    ) -> None:
        self._listener = listener
        self._take = take
        self._name = name
        self._is_over = threading.Event()
        threading.Thread(target=self._attend, name=name, daemon=True).start()

    def close(self) -> None:
        self._is_over.set()
        # A thread that waits in accept would go on accepting after a mere close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _attend(self) -> None:
        while not self._is_over.is_set():
            try:
                connection, address = self._listener.accept()
                self._let_in(connection, join_address(*address[:2]))
            except (OSError, RuntimeError) as error:
                if not self._is_over.is_set():
                    logger.warning("%s: a call could not be taken: %s", self._name, error)
                    self._is_over.wait(_PAUSE_SECONDS)

    def _let_in(self, connection: socket.socket, who: str) -> None:
        try:
            threading.Thread(target=self._take, args=(connection, who), daemon=True).start()
        except RuntimeError:
            connection.close()
            raise
