"""The leader of an attention group tells the other members what to compute."""

import msgspec
from moe_comm.transport.exchange import Exchange

from moe_serve.types import Batch

LEADER = 0


def share_batch(attention: Exchange, batch: Batch) -> Batch:
    """-> the leader's batch, on every member; theirs are not looked at.

    Raises:
        PeerLostError: a member did not come to the step.
    """
    if attention.size == 1:
        return batch
    own = msgspec.msgpack.encode(batch) if attention.rank == LEADER else b""
    return msgspec.msgpack.decode(attention.allgather_bytes(own)[LEADER], type=Batch)
