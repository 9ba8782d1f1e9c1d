"""The bytes that each token id stands for."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tokenizers import Tokenizer

_JOINING = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class DecoderForm(NamedTuple):
    """How a tokenizer's ids become text.

    Attributes:
        is_byte_level: tokens are bytes in disguise, as in GPT-2 and most models since.
        joins_bytes: the text is the tokens' bytes, joined.
        num_front_spaces: how many spaces are cut from the front of the text.
    """

    is_byte_level: bool
    joins_bytes: bool
    num_front_spaces: int


def decoder_form(tokenizer: Tokenizer) -> DecoderForm:
    if tokenizer.decoder is None:
        return DecoderForm(False, False, 0)
    parts = _flat(json.loads(tokenizer.decoder.__getstate__()))
    kinds = {part["type"] for part in parts}
    is_byte_level = kinds == {"ByteLevel"}
    spaces = sum(_num_front_spaces(part) for part in parts)
    return DecoderForm(is_byte_level, is_byte_level or kinds <= _JOINING, spaces)


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [part for inner in decoder["decoders"] for part in _flat(inner)]


def _num_front_spaces(decoder: dict[str, Any]) -> int:
    if decoder["type"] == "Strip" and decoder["content"] == " ":
        return int(decoder["start"])
    return int(decoder["type"] == "Metaspace" and decoder.get("prepend_scheme") != "never")


class TokenBytes:
    """token id -> bytes; special tokens give their names, ids without a token give nothing."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_of = _byte_alphabet() if decoder_form(tokenizer).is_byte_level else None
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        found = self._known.get(token_id)
        if found is None:
            found = self._known[token_id] = self._look_up(token_id)
        return found

    def join(self, token_ids: Iterable[int]) -> bytes:
        return b"".join(self[token_id] for token_id in token_ids)

    def _look_up(self, token_id: int) -> bytes:
        name = self._tokenizer.id_to_token(token_id)
        if name is None:
            return b""
        if self._byte_of is not None:
            if all(character in self._byte_of for character in name):
                return bytes(self._byte_of[character] for character in name)
            return name.encode()
        if match := _BYTE_TOKEN.fullmatch(name):
            return bytes.fromhex(match[1])
        # The second of two keeps the space that decoders cut from the front of a text.
        once, twice = (self._tokenizer.decode([token_id] * n, False) for n in (1, 2))
        return twice[len(once) :].encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return alphabet
