"""Plan rank 0's end of a rendezvous: takes calls, turns strangers away, gives all one answer."""

import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from moe_comm.transport.rendezvous_book import Answer, Book, Party
from moe_comm.transport.rendezvous_point import MeetingPoint
from moe_comm.transport.tcp_accept import Reception
from moe_comm.transport.tcp_connect import listen, split_address
from moe_comm.transport.tcp_handshake import (
    HandshakeError,
    VersionError,
    greet_guest,
    receive_message,
    send_message,
)

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 5.0
_TURN_SECONDS = 0.05


class Host:
    """Plan rank 0's end; it goes on telling late ones that they are late until it is closed.

    Args:
        pools: of the whole world.

    Attributes:
        readmit: what one gets that comes when the world is complete, in place of the refusal.

    Raises:
        OSError: the address is taken, or not this host's.
    """

    def __init__(self, point: MeetingPoint, pools: Sequence[str]) -> None:
        self._point = point
        self._book = Book(pools)
        self.readmit: Callable[[Party, Answer], Answer] | None = None
        self._reception = Reception(
            listen(*split_address(point.address)), self._receive, "rendezvous"
        )

    def meet(self, party: Party) -> Answer:
        """Wait until all pools are there; a refusal has been told to all that came."""
        end = time.monotonic() + self._point.wait_seconds
        self._book.enter(party)
        while (answer := self._book.answer(_TURN_SECONDS)) is None:
            if time.monotonic() > end:
                self._book.give_up(self._point.wait_seconds)
        self._book.note_told(party)
        self._book.wait_until_told(self._point.tell_seconds)
        return answer

    def close(self) -> None:
        self._reception.close()

    def _receive(self, connection: socket.socket, who: str) -> None:
        with connection:
            connection.settimeout(_HANDSHAKE_SECONDS)
            try:
                greet_guest(connection, self._point.secret, self._point.version)
                party = msgspec.msgpack.decode(receive_message(connection), type=Party)
                self._attend(connection, party)
            except VersionError as error:
                self._book.refuse(f"a process at {who} cannot join: {error}")
            except (HandshakeError, msgspec.MsgspecError) as error:
                logger.warning("turned away %s: %s", who, error)
                self._book.turn_away(who, str(error))
            except OSError as error:
                logger.debug("lost %s: %s", who, error)

    def _attend(self, connection: socket.socket, party: Party) -> None:
        """Keep a party that has come until there is an answer."""
        answer = self._book.enter(party)
        formed = self._book.answer(0.0)
        if answer is not None and formed is not None and self.readmit is not None:
            answer = replace(self.readmit(party, answer), session=formed.session)
        while answer is None:
            answer = self._book.answer(_TURN_SECONDS)
            if answer is None and _has_ended(connection):
                self._book.leave(party)
                logger.warning("%s ended before the world was complete", party)
                return
        send_message(connection, msgspec.msgpack.encode(answer))
        self._book.note_told(party)


def _has_ended(connection: socket.socket) -> bool:
    """A party says nothing more, so that whatever can be read is its end."""
    return bool(select.select([connection], [], [], 0)[0])
