"""What a KV endpoint tells its engine."""

from dataclasses import dataclass
from typing import TypeAlias

from moe_comm.kv.block import Parts
from moe_comm.kv.hello import Hello
from moe_comm.kv.negotiate import Agreement


@dataclass(frozen=True, slots=True)
class PeerReady:
    """Connected, trusted and agreed.

    Attributes:
        sending, receiving: None where KV does not go that way.
    """

    hello: Hello
    sending: Agreement | None
    receiving: Agreement | None


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """No agreement or no trust, or it did not answer; nothing more is tried.

    Attributes:
        address: HOST:PORT as given to `connect`, or where the call came from.
    """

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class PeerLost:
    """A peer that was ready is gone; its transfers' failures have been told before."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """All peers accepted: send the tokens from `first_token` on, layer by layer."""

    request_id: str
    first_token: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """All peers hold all that they accepted."""

    request_id: str


@dataclass(frozen=True, slots=True)
class SendFailed:
    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offered:
    """Peers that together hold all heads of this rank offer the request: accept or refuse it.

    Attributes:
        peers: their names, sorted.
        number: counts the offers that this end was told of.
    """

    request_id: str
    num_tokens: int
    peers: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class OfferFailed:
    """Some peers had offered the request, and it was given up before all heads were offered."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Landed:
    """One layer's next tokens.

    Attributes:
        first_head: among this rank's heads.
        parts: keys and values, or latent and rotary key; [tokens, heads that came, width] in this
            end's cache type (bfloat16 as uint16).
    """

    request_id: str
    layer: int
    first_token: int
    first_head: int
    parts: Parts


@dataclass(frozen=True, slots=True)
class Completed:
    """Every layer of every accepted token has been told as Landed before."""

    request_id: str


@dataclass(frozen=True, slots=True)
class ReceiveFailed:
    request_id: str
    reason: str


KvEvent: TypeAlias = (
    PeerReady
    | PeerRefused
    | PeerLost
    | Accepted
    | Delivered
    | SendFailed
    | Offered
    | OfferFailed
    | Landed
    | Completed
    | ReceiveFailed
)
