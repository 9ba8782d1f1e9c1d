"""Where mpiruns meet, and with what: the settings of a rendezvous."""

import hmac
from dataclasses import dataclass, field

from moe_comm.transport.tcp_handshake import WORLD_PROTOCOL


class RendezvousError(ConnectionError):
    """There is no world: a sentence that says why."""


@dataclass(frozen=True, slots=True)
class MeetingPoint:
    """
    Attributes:
        address: HOST:PORT of plan rank 0.
        secret: held by all mpiruns.
        wait_seconds: after which a world that is not complete is given up.
        tell_seconds: for which a refusal waits for those that have not come yet.
        version: of the protocol that this process speaks.
    """

    address: str
    secret: bytes = field(repr=False)
    wait_seconds: float
    tell_seconds: float = 5.0
    version: int = WORLD_PROTOCOL

    def key(self, session: bytes) -> bytes:
        """What the ranks of one world prove to one another that they know."""
        return hmac.digest(self.secret, session, "sha256")
