"""What the two ends say to each other; each message is one frame's header.

A transfer is one request's KV on one connection, under a number that its sender gives it and never
uses again there. From the sender: Offer, Block, Withdraw. From the receiver: Accept, Refuse,
Complete.
"""

from typing import TypeAlias

import msgspec

from moe_comm.kv.hello import Count, Hello, Positive


class Proof(msgspec.Struct, frozen=True, tag="proof", tag_field="type"):
    """Attributes:
    hmac: see `handshake`; hexadecimal.
    """

    hmac: str


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye", tag_field="type"):
    """The connection is given up; the last frame on it."""

    reason: str


class Ping(msgspec.Struct, frozen=True, tag="ping", tag_field="type"):
    """The sender of this is alive; not answered."""


class Offer(msgspec.Struct, frozen=True, tag="offer", tag_field="type"):
    """KV of the request's tokens from 0 to before `num_tokens` will come."""

    transfer: Count
    request_id: str
    num_tokens: Positive


class Accept(msgspec.Struct, frozen=True, tag="accept", tag_field="type"):
    """Send it from `first_token`; the tokens before are here."""

    transfer: Count
    first_token: Count


class Refuse(msgspec.Struct, frozen=True, tag="refuse", tag_field="type"):
    """Do not send it, or no more of it."""

    transfer: Count
    reason: str


class Block(msgspec.Struct, frozen=True, tag="block", tag_field="type", kw_only=True):
    """One layer's tokens from `first_token` on, the next that are due; the numbers are the payload.

    Attributes:
        first_head, end_head, wire_type: as agreed; for the record.
    """

    transfer: Count
    layer: Count
    first_token: Count
    num_tokens: Positive
    first_head: Count
    end_head: Count
    wire_type: str


class Complete(msgspec.Struct, frozen=True, tag="complete", tag_field="type"):
    """All that was accepted is here."""

    transfer: Count


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw", tag_field="type"):
    """No more of it will come."""

    transfer: Count
    reason: str


Message: TypeAlias = (
    Hello | Proof | Goodbye | Ping | Offer | Accept | Refuse | Block | Complete | Withdraw
)
