"""Two ends prove to each other that they hold the same secret, without showing it.

Each proof is HMAC-SHA256 (RFC 2104) over the prover's role and both hellos, which hold fresh
nonces: it can be neither replayed nor reflected, and nobody can change a hello unseen.
"""

import hashlib
import hmac
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["connecting", "listening"]

NONCE_BYTES = 32


class HandshakeError(ConnectionError):
    """The other end is no trusted KV end."""


def prove(secret: bytes, role: Role, connecting_hello: bytes, listening_hello: bytes) -> str:
    """Hexadecimal proof of the end in `role`, from both hello headers as they were sent."""
    digests = [hashlib.sha256(each).digest() for each in (connecting_hello, listening_hello)]
    return hmac.digest(secret, b"".join((b"MKV1 ", role.encode(), *digests)), "sha256").hex()


def check_proof(
    given: str, secret: bytes, role: Role, connecting_hello: bytes, listening_hello: bytes
) -> None:
    """
    Raises:
        HandshakeError: it is not what the secret gives.
    """
    due = prove(secret, role, connecting_hello, listening_hello)
    if not hmac.compare_digest(given.encode(), due.encode()):
        raise HandshakeError("it does not hold the same secret")


def check_nonce(nonce: str) -> None:
    """
    Raises:
        HandshakeError: it is not `NONCE_BYTES` in hexadecimal.
    """
    if len(nonce) != 2 * NONCE_BYTES or not set(nonce) <= set("0123456789abcdef"):
        raise HandshakeError(f"its nonce is not {NONCE_BYTES} bytes in hexadecimal")
