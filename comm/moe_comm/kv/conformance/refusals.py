"""What the endpoint under test must refuse and survive; and the word that tells why it did."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from moe_comm.kv.conformance.tester import ConformanceError
from moe_comm.kv.frames import PREFIX, encode_head
from moe_comm.kv.greeting import no_payload, recognise
from moe_comm.kv.handshake import HandshakeError
from moe_comm.kv.hello import GroupedLayer, Hello, LatentLayer, Layer
from moe_comm.kv.messages import Goodbye, Offer, Ping
from moe_comm.kv.stream import FrameStream

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A hello that does not suit the target.

    Attributes:
        word: what the target's goodbye must hold.
    """

    name: str
    hello: Hello
    word: str


@dataclass(frozen=True, slots=True)
class Nonsense:
    """Bytes after a good greeting at which the target must give up the connection."""

    name: str
    data: bytes


def refusals(target: Hello) -> Iterator[Refusal]:
    own = msgspec.structs.replace(target, name="conformance:0")

    def but(name: str, word: str, **changes: object) -> Refusal:
        return Refusal(name, msgspec.structs.replace(own, **changes), word)

    yield but("another version", "version", versions=(4096,))
    yield but("another model", "model", model_name="another")
    yield but("another shape", "model", model_digest="0" * 64)
    yield but("a layer less", "layers", layers=own.layers[:-1])
    yield but("a wider part", "width", layers=(_wider(own.layers[0]), *own.layers[1:]))
    yield but("another kind", "kind", layers=(_other_kind(own.layers[0]), *own.layers[1:]))
    yield but("an unknown number type", "type", sends=("int2",), receives=("int2",))


def _wider(layer: Layer) -> Layer:
    if isinstance(layer, GroupedLayer):
        return msgspec.structs.replace(layer, value_width=layer.value_width + 1)
    return msgspec.structs.replace(layer, latent_width=layer.latent_width + 1)


def _other_kind(layer: Layer) -> Layer:
    if isinstance(layer, GroupedLayer):
        return LatentLayer(latent_width=layer.key_width, rotary_width=2)
    return GroupedLayer(
        num_kv_heads=1, first_head=0, end_head=1, key_width=8, value_width=8, rotary_width=8
    )


def nonsense() -> Iterator[Nonsense]:
    yield Nonsense("another magic", PREFIX.pack(b"XKV1", 2, 0) + b"{}")
    yield Nonsense("a header without end", PREFIX.pack(b"MKV1", 0xFFFFFFFF, 0))
    yield Nonsense("a header that is no JSON", PREFIX.pack(b"MKV1", 4, 0) + b"\xff{}{")
    yield Nonsense("an unknown message", PREFIX.pack(b"MKV1", 14, 0) + b'{"type":"hej"}')
    yield Nonsense("a payload where none belongs", encode_head(Offer(1, "x", 3), 1 << 40))


async def run_refusal(address: str, secret: bytes, refusal: Refusal) -> None:
    """
    Raises:
        ConformanceError: the target took it, or did not say why not.
    """
    reason = await _last_word(address, secret, refusal.hello, b"")
    if refusal.word not in reason.lower():
        raise ConformanceError(f"its sentence lacks {refusal.word!r}: {reason!r}")


async def run_nonsense(address: str, secret: bytes, hello: Hello, nonsense: Nonsense) -> None:
    """
    Raises:
        ConformanceError: the target keeps the connection.
    """
    await _last_word(address, secret, hello, nonsense.data)


async def run_wrong_secret(address: str, secret: bytes, hello: Hello) -> None:
    """
    Raises:
        ConformanceError: the target trusts an end that holds another secret.
    """
    with await _connect(address) as connection:
        stream = FrameStream(connection, _SECONDS)
        try:
            await recognise(stream, hello, secret + b"?", "connecting")
        except HandshakeError:
            await _read_to_end(stream)
            return
    raise ConformanceError("it proved a secret that it cannot know")


async def probe(address: str, secret: bytes) -> Hello:
    """The target's own hello.

    Raises:
        HandshakeError, FrameError, OSError: it cannot be greeted.
    """
    unlike = Hello(
        name="conformance:probe",
        model_name="",
        model_digest="",
        layers=(),
        cache_type="float32",
        sends=("float32",),
        receives=("float32",),
        page_size=1,
        rotary_order="halves",
    )
    with await _connect(address) as connection:
        return await recognise(FrameStream(connection, _SECONDS), unlike, secret, "connecting")


async def _last_word(address: str, secret: bytes, hello: Hello, data: bytes) -> str:
    with await _connect(address) as connection:
        stream = FrameStream(connection, _SECONDS)
        await recognise(stream, hello, secret, "connecting")
        with contextlib.suppress(OSError):
            await stream.send([data])
        return await _read_to_end(stream)


async def _read_to_end(stream: FrameStream) -> str:
    """The reason of the target's goodbye; empty if it closes without."""
    try:
        async with asyncio.timeout(_SECONDS):
            while True:
                message = (await stream.receive(no_payload)).message
                if isinstance(message, Goodbye):
                    return message.reason
                if not isinstance(message, Ping):
                    raise ConformanceError(f"it went on with a {type(message).__name__}")
    except TimeoutError as error:
        raise ConformanceError(f"it kept the connection for {_SECONDS:g} s") from error
    except ConnectionError:
        return ""


async def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return await asyncio.to_thread(socket.create_connection, (host, int(port)), _SECONDS)
