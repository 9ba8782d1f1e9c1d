"""Connections between the ranks of a group whose members are of several mpiruns."""

import errno
import hashlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.tcp_connect import (
    GivenUpError,
    Patience,
    connect,
    keep_alive,
    split_address,
)
from moe_comm.transport.tcp_handshake import greet_guest, greet_host, receive_exactly

# Who calls, and for which group; after the handshake.
_CALL = struct.Struct("!I16s")
_HANDSHAKE_SECONDS = 5.0
# Ever more seldom, for each look waits at the other end until that takes calls.
_FIRST_LOOK_SECONDS = 1.0
_LONGEST_LOOK_SECONDS = 16.0
_LOOK_SECONDS = 1.0
# A host takes a call however busy its processes are: who does not answer by then is out of reach.
_REACH_SECONDS = 5.0
_BREAK_SECONDS = 30.0
_NO_WAY = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}


class CutOffError(PeerLostError):
    """There is no way to a rank that may well be there."""

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


class TcpMesh:
    """Opens one group's connections after the other; a rank calls those below it.

    Args:
        joined: with a listener and everybody's address.
    """

    def __init__(self, joined: Joined) -> None:
        assert joined.listener is not None
        self._joined = joined
        self._listener = joined.listener
        self._addresses = {each.plan_rank: each.address for each in joined.membership.members}
        self._epoch = 0
        self._num_opened: Counter[tuple[int, ...]] = Counter()
        # Those that are ahead call for a group that is not open here yet.
        self._early: dict[tuple[int, bytes], socket.socket] = {}

    def connect(
        self,
        members: Sequence[int],
        deadline_seconds: float,
        should_stop: Callable[[], bool],
        peers: Collection[int] | None = None,
    ) -> dict[int, socket.socket]:
        """Connections to other members, by plan rank; called by all of them.

        Args:
            peers: those to connect to, who have this rank among theirs; all others if not given.

        Raises:
            CutOffError: there is no way to a member.
            PeerLostError: a member has ended, or not all came in time.
        """
        group = self._name_group(tuple(members))
        patience = Patience(deadline_seconds, should_stop)
        connections: dict[int, socket.socket] = {}
        try:
            for rank in sorted(set(members if peers is None else peers) - {self._joined.plan_rank}):
                reach = self._call if rank < self._joined.plan_rank else self._await_call
                connections[rank] = reach(rank, group, patience)
        except BaseException:
            for connection in connections.values():
                connection.close()
            raise
        return connections

    def start_epoch(self, epoch: int, addresses: Mapping[int, str]) -> None:
        """What was opened, or half opened, in the epoch before is forgotten by all ranks alike.

        Args:
            addresses: of ranks that have come back.
        """
        self._epoch = epoch
        self._addresses |= addresses
        self._num_opened.clear()

    def close(self) -> None:
        for connection in (self._listener, *self._early.values()):
            connection.close()

    def _name_group(self, members: tuple[int, ...]) -> bytes:
        """The same for all members; another one each time that they open a group."""
        self._num_opened[members] += 1
        name = f"{self._epoch} {members} {self._num_opened[members]}"
        return hashlib.sha256(name.encode()).digest()[:16]

    def _call(self, rank: int, group: bytes, patience: Patience) -> socket.socket:
        address = self._addresses[rank]
        try:
            connection = self._reach(address, patience)
            # It may be busy for long before it takes calls.
            patience.readable(connection)
            connection.settimeout(_HANDSHAKE_SECONDS)
            greet_host(connection, self._joined.key)
            connection.sendall(_CALL.pack(self._joined.plan_rank, group))
        except GivenUpError as error:
            raise PeerLostError(f"plan rank {rank} at {address}: {error}") from error
        except OSError as error:
            message = f"plan rank {rank} at {address} cannot be reached ({error}); see its log"
            if error.errno in _NO_WAY:
                raise CutOffError(message, rank) from error
            raise PeerLostError(message) from error
        return connection

    def _reach(self, address: str, patience: Patience) -> socket.socket:
        try:
            connection = connect(*split_address(address), patience.briefly(_REACH_SECONDS))
        except GivenUpError as error:
            patience.turn()
            raise OSError(errno.ETIMEDOUT, str(error)) from error
        keep_alive(connection, max(_BREAK_SECONDS, 2 * self._joined.silent_seconds))
        return connection

    def _await_call(self, rank: int, group: bytes, patience: Patience) -> socket.socket:
        seconds = _FIRST_LOOK_SECONDS
        while (rank, group) not in self._early:
            try:
                called = patience.readable_within(self._listener, seconds)
            except GivenUpError as error:
                raise PeerLostError(f"plan rank {rank} did not call: {error}") from error
            if called:
                self._take_call()
            else:
                self._look_for(rank)
                seconds = min(2 * seconds, _LONGEST_LOOK_SECONDS)
        return self._early.pop((rank, group))

    def _look_for(self, rank: int) -> None:
        """A rank listens from before it joins until it ends; it takes this call for a stranger's.

        Raises:
            PeerLostError: it does not listen any more.
        """
        address = self._addresses[rank]
        try:
            connect(*split_address(address), Patience(_LOOK_SECONDS, lambda: False)).close()
        except ConnectionRefusedError as error:
            raise PeerLostError(f"plan rank {rank} at {address} has ended; see its log") from error
        except OSError:
            # There is no way to its host just now: it may have one before the deadline.
            return

    def _take_call(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_HANDSHAKE_SECONDS)
        keep_alive(connection, max(_BREAK_SECONDS, 2 * self._joined.silent_seconds))
        try:
            greet_guest(connection, self._joined.key)
            rank, group = _CALL.unpack(receive_exactly(connection, _CALL.size))
        except OSError:
            # A stranger, or a peer that has just ended: who is missed will be missed.
            connection.close()
            return
        self._early[rank, group] = connection
