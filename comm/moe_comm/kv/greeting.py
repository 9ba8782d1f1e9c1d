"""The first frames of a connection: both ends declare themselves, prove their trust, and agree."""

import asyncio
import secrets
from dataclasses import dataclass

import msgspec

from moe_comm.kv.frames import Frame, FrameError, encode_head, frame_header
from moe_comm.kv.handshake import NONCE_BYTES, HandshakeError, Role, check_nonce, check_proof, prove
from moe_comm.kv.hello import Hello
from moe_comm.kv.messages import Goodbye, Message, Proof
from moe_comm.kv.negotiate import Agreement, CannotConvertError, negotiate
from moe_comm.kv.stream import FrameStream


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end.

    Attributes:
        sending, receiving: seen from this end; None where KV does not go that way.
    """

    hello: Hello
    sending: Agreement | None
    receiving: Agreement | None


async def greet(stream: FrameStream, own: Hello, secret: bytes, role: Role, seconds: float) -> Peer:
    """
    Raises:
        HandshakeError: it does not hold the secret.
        CannotConvertError: the ends cannot agree; both name the same difference.
        FrameError: it speaks something else.
        OSError: it broke off, refused (ConnectionRefusedError), or took longer than `seconds`.
    """
    async with asyncio.timeout(seconds):
        try:
            hello = await recognise(stream, own, secret, role)
            return agree(own, hello)
        except (HandshakeError, CannotConvertError, FrameError) as error:
            await stream.part(str(error))
            raise


async def recognise(stream: FrameStream, own: Hello, secret: bytes, role: Role) -> Hello:
    """The other end's hello, once both have proved that they hold the secret.

    Raises:
        HandshakeError, FrameError, OSError: as `greet`.
    """
    nonce = secrets.token_bytes(NONCE_BYTES).hex()
    header = msgspec.json.encode(msgspec.structs.replace(own, nonce=nonce))
    await stream.send([frame_header(header)])
    frame = await _next(stream)
    if not isinstance(frame.message, Hello):
        raise FrameError(f"a {type(frame.message).__name__} came before the hello")
    check_nonce(frame.message.nonce)
    hellos = (header, frame.header) if role == "connecting" else (frame.header, header)
    await stream.send([encode_head(Proof(prove(secret, role, *hellos)))])
    proof = (await _next(stream)).message
    if not isinstance(proof, Proof):
        raise FrameError(f"a {type(proof).__name__} came before the proof")
    other: Role = "listening" if role == "connecting" else "connecting"
    check_proof(proof.hmac, secret, other, *hellos)
    return frame.message


async def _next(stream: FrameStream) -> Frame:
    frame = await stream.receive(no_payload)
    if isinstance(frame.message, Goodbye):
        raise ConnectionRefusedError(frame.message.reason)
    return frame


def no_payload(message: Message) -> int:
    return 0


def agree(own: Hello, other: Hello) -> Peer:
    """
    Raises:
        CannotConvertError: see `negotiate`; also if neither sends while the other receives.
    """
    sending = negotiate(own, other) if own.sends and other.receives else None
    receiving = negotiate(other, own) if other.sends and own.receives else None
    if sending is None and receiving is None:
        raise CannotConvertError(
            f"of {own.name} and {other.name} neither sends KV while the other receives it"
        )
    return Peer(other, sending, receiving)
