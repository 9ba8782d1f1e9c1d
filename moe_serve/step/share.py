"""The leader of an attention group tells the other members what to compute."""

from collections.abc import Sequence

import msgspec
from moe_comm.transport.exchange import Exchange

from moe_serve.types import Batch

LEADER = 0


def share_batch(
    attention: Exchange, batch: Batch, letter: bytes = b""
) -> tuple[Batch, Sequence[bytes]]:
    """-> the leader's batch, on every member; theirs are not looked at. And all their letters.

    Raises:
        PeerLostError: a member did not come to the step.
    """
    if attention.size == 1:
        return batch, [letter]
    own = msgspec.msgpack.encode((batch, letter)) if attention.rank == LEADER else letter
    letters = attention.allgather_bytes(own)
    batch, letters[LEADER] = msgspec.msgpack.decode(letters[LEADER], type=tuple[Batch, bytes])
    return batch, letters
