"""Canonical blocks: one layer's KV of adjacent tokens as bytes, whatever the pages at either end.

Shape legend: T tokens, H heads, d width.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from moe_comm.kv.negotiate import Agreement, LayerBlocks
from moe_comm.kv.number_types import Array, convert, dequantize, dtype_of, quantize
from moe_comm.kv.rotary_order import reorder

Parts: TypeAlias = tuple[Array, Array]

_SCALE = np.dtype("<f4")


def parts_bytes(parts: Parts) -> int:
    return sum(part.nbytes for part in parts)


def block_bytes(agreement: Agreement, layer: int, num_tokens: int) -> int:
    """Of the payload."""
    blocks = agreement.layers[layer]
    scales = 2 * _SCALE.itemsize if agreement.wire_type == "int8" else 0
    per_head = sum(blocks.widths) * dtype_of(agreement.wire_type).itemsize + scales
    return num_tokens * blocks.num_heads * per_head


def encode_block(agreement: Agreement, layer: int, parts: Parts) -> Sequence[Array]:
    """The payload's sections, in order.

    Args:
        parts: [tokens, heads of the sender, width] each, in the sender's cache type.
    """
    blocks = agreement.layers[layer]
    own = slice(blocks.sender_head, blocks.sender_head + blocks.num_heads)
    sections = [_to_wire(agreement, part_THd[:, own]) for part_THd in parts]
    return [section for kind in zip(*sections, strict=True) for section in kind]


def decode_block(agreement: Agreement, layer: int, num_tokens: int, payload: bytearray) -> Parts:
    """The two parts, [tokens, heads that cross, width], in the receiver's cache type.

    Args:
        payload: exactly `block_bytes` long; the parts may be views of it.
    """
    blocks = agreement.layers[layer]
    assert len(payload) == block_bytes(agreement, layer, num_tokens)
    first_THd, second_THd = _from_wire(agreement, blocks, num_tokens, payload)
    if agreement.reorders:
        target = agreement.receiver_order
        first_THd = reorder(first_THd, blocks.rotary_widths[0], target)
        second_THd = reorder(second_THd, blocks.rotary_widths[1], target)
    return first_THd, second_THd


def _to_wire(agreement: Agreement, part_THd: Array) -> tuple[Array, ...]:
    if agreement.wire_type == "int8":
        steps_THd, scale_TH = quantize(convert(part_THd, agreement.sender_type, "float32"))
        return scale_TH, steps_THd
    numbers = convert(part_THd, agreement.sender_type, agreement.wire_type)
    return (np.ascontiguousarray(numbers, dtype_of(agreement.wire_type)),)


def _from_wire(
    agreement: Agreement, blocks: LayerBlocks, num_tokens: int, payload: bytearray
) -> Parts:
    shape = num_tokens, blocks.num_heads
    numbers = dtype_of(agreement.wire_type)
    if agreement.wire_type != "int8":
        first, second = _cut(payload, 0, [(*shape, width) for width in blocks.widths], numbers)
        return _to_cache(agreement, first), _to_cache(agreement, second)
    scales = _cut(payload, 0, [shape, shape], _SCALE)
    start = 2 * num_tokens * blocks.num_heads * _SCALE.itemsize
    steps = _cut(payload, start, [(*shape, width) for width in blocks.widths], numbers)
    first, second = (dequantize(*pair) for pair in zip(steps, scales, strict=True))
    target = agreement.receiver_type
    return convert(first, "float32", target), convert(second, "float32", target)


def _to_cache(agreement: Agreement, part_THd: Array) -> Array:
    return convert(part_THd, agreement.wire_type, agreement.receiver_type)


def _cut(
    payload: bytearray, start: int, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[np.generic]
) -> list[Array]:
    arrays: list[Array] = []
    for shape in shapes:
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(payload, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return arrays
