"""Canonical blocks: their bytes, as the document gives them, and what they keep."""

import struct

import numpy as np
import pytest
from kv_ends import grouped, hello, hellos, latent, random_parts
from moe_comm.kv.block import Parts, block_bytes, decode_block, encode_block
from moe_comm.kv.hello import Hello
from moe_comm.kv.negotiate import negotiate
from moe_comm.kv.number_types import CACHE_TYPES, convert
from moe_comm.kv.rotary_order import reorder


def cross(sender: Hello, receiver: Hello, parts: Parts) -> Parts:
    agreement = negotiate(sender, receiver)
    payload = b"".join(map(bytes, encode_block(agreement, 0, parts)))
    assert len(payload) == block_bytes(agreement, 0, len(parts[0]))
    return decode_block(agreement, 0, len(parts[0]), bytearray(payload))


def payload_of(sends: str, parts: Parts) -> bytes:
    agreement = negotiate(hello("a", sends=(sends,)), hello("b", [grouped(4, 1, 2)] * 2))
    return b"".join(map(bytes, encode_block(agreement, 0, parts)))


def test_the_bytes_of_a_block() -> None:
    """Two tokens, heads 2 and 3 of 4, keys of 8 then values of 6, little-endian."""
    keys, values = random_parts(grouped(), 2)
    numbers = [*keys[:, 2:].ravel(), *values[:, 2:].ravel()]
    assert payload_of("float32", (keys, values)) == struct.pack("<56f", *numbers)
    assert payload_of("float16", (keys, values)) == struct.pack("<56e", *numbers)
    halves = convert(np.array(numbers), "float32", "bfloat16")
    assert payload_of("bfloat16", (keys, values)) == struct.pack("<56H", *halves)


def test_the_bytes_of_an_int8_block() -> None:
    """Scales of keys, scales of values, keys, values."""
    keys, values = random_parts(grouped(), 2)
    rows = [*keys[:, 2:].reshape(4, 8), *values[:, 2:].reshape(4, 6)]
    scales = [np.abs(row).max() / np.float32(127) for row in rows]
    steps = np.concatenate([np.rint(row / s) for row, s in zip(rows, scales, strict=True)])
    due = struct.pack("<8f", *scales) + struct.pack("<56b", *steps.astype(int))
    assert payload_of("int8", (keys, values)) == due


@pytest.mark.parametrize("kept", CACHE_TYPES)
@pytest.mark.parametrize("sends", CACHE_TYPES)
@pytest.mark.parametrize("layer", [grouped(), latent()])
def test_numbers_that_fit_arrive_as_they_left(layer: object, sends: str, kept: str) -> None:
    assert isinstance(layer, type(grouped()) | type(latent()))
    parts = random_parts(layer, 3)
    small = [convert(convert(each, "float32", "bfloat16"), "bfloat16", "float32") for each in parts]
    sender = hello("a", [layer], sends=(sends,))
    arrived = cross(sender, hello("b", [layer], cache_type=kept), (small[0], small[1]))
    for part, landed in zip(small, arrived, strict=True):
        assert np.allclose(convert(landed, kept, "float32"), part, rtol=0, atol=2e-7)


def test_products_survive_another_rotary_order() -> None:
    """A query in the receiver's order meets the reordered key as one in the sender's met it."""
    for layer in (grouped(), latent()):
        parts = random_parts(layer, 3)
        queries = random_parts(layer, 3, seed=1)
        for order, other in (("halves", "interleaved"), ("interleaved", "halves")):
            sender = hello("a", [layer], rotary_order=order)
            landed = cross(sender, hello("b", [layer], rotary_order=other), parts)
            for query, part, reordered, width in zip(
                queries, parts, landed, layer.rotary_widths, strict=True
            ):
                same = reorder(query, width, other)
                assert np.allclose((same * reordered).sum(-1), (query * part).sum(-1), atol=1e-5)
                assert np.array_equal(reorder(reordered, width, order), part)


def test_pairs_stay_together() -> None:
    row = np.arange(6.0)
    assert [*reorder(row, 6, "halves")] == [0, 2, 4, 1, 3, 5]
    assert [*reorder(row, 6, "interleaved")] == [0, 3, 1, 4, 2, 5]
    assert [*reorder(row, 4, "halves")] == [0, 2, 1, 3, 4, 5]


def test_two_ranks_make_one() -> None:
    whole = random_parts(grouped(), 3)
    receiver = hello("b")
    for rank, sender in enumerate(hellos("a", "gqa", 2)):
        heads = slice(2 * rank, 2 * rank + 2)
        landed = cross(sender, receiver, (whole[0][:, heads], whole[1][:, heads]))
        assert negotiate(sender, receiver).layers[0].receiver_head == 2 * rank
        assert all(
            np.array_equal(part[:, heads], each) for part, each in zip(whole, landed, strict=True)
        )
