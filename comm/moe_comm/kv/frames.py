"""Frames on a byte stream: magic, header length, payload length, JSON header, payload."""

import struct
from dataclasses import dataclass

import msgspec

from moe_comm.kv.messages import Message

MAGIC = b"MKV1"
PREFIX = struct.Struct("<4sIQ")
MAX_HEADER_BYTES = 1 << 20


class FrameError(ValueError):
    """What came is no frame of this protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Attributes:
    header: the message as it came.
    """

    message: Message
    header: bytes
    payload: bytearray


def encode_head(message: Message, payload_bytes: int = 0) -> bytes:
    """All of a frame but its payload."""
    return frame_header(msgspec.json.encode(message), payload_bytes)


def frame_header(header: bytes, payload_bytes: int = 0) -> bytes:
    return PREFIX.pack(MAGIC, len(header), payload_bytes) + header


def decode_prefix(prefix: bytes | bytearray) -> tuple[int, int]:
    """Lengths of header and payload.

    Raises:
        FrameError: it starts otherwise, or the header is too long.
    """
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FrameError(f"a frame starts with {bytes(magic)!r}, not with {MAGIC!r}")
    if header_bytes > MAX_HEADER_BYTES:
        raise FrameError(f"a header of {header_bytes} bytes exceeds {MAX_HEADER_BYTES}")
    return header_bytes, payload_bytes


def decode_header(header: bytes | bytearray) -> Message:
    """
    Raises:
        FrameError: it is no message of this protocol.
    """
    try:
        message: Message = msgspec.json.decode(header, type=Message)
    except msgspec.DecodeError as error:
        raise FrameError(f"a header is no message of this protocol: {error}") from error
    return message
