"""Numbers as caches keep them and as they cross the wire, in numpy; bfloat16 as its 16 bits.

Shape legend: T tokens, H heads, d width.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

CACHE_TYPES = ("float32", "bfloat16", "float16")
WIRE_TYPES = (*CACHE_TYPES, "int8")

_LARGEST_INT8 = 127
_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "bfloat16": np.dtype("<u2"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}


def dtype_of(name: str) -> np.dtype[Any]:
    """The little-endian numpy dtype that holds it."""
    return _DTYPES[name]


def convert(values: Array, source: str, target: str) -> Array:
    """Between cache types; rounds to nearest even, and into float16 also to its range."""
    if source == target:
        return values
    exact = widen_bfloat16(values) if source == "bfloat16" else values.astype(np.float32)
    if target == "bfloat16":
        return narrow_bfloat16(exact)
    if target == "float16":
        largest = np.finfo(np.float16).max
        return exact.clip(-largest, largest).astype(_DTYPES[target])
    return exact.astype(_DTYPES[target], copy=False)


def widen_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow_bfloat16(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    narrow = rounded.astype(np.dtype("<u2"))
    narrow[np.isnan(values)] = 0x7FC0
    return narrow


def quantize(values_THd: Array) -> tuple[Array, Array]:
    """float32 to int8 and the float32 scale of each row: its largest magnitude over 127."""
    largest_TH = np.maximum(values_THd.max(axis=-1), -values_THd.min(axis=-1))
    scale_TH = (largest_TH / _LARGEST_INT8).astype(np.dtype("<f4"))
    steps_THd = values_THd / np.where(scale_TH > 0, scale_TH, 1)[..., None]
    np.rint(steps_THd, out=steps_THd)
    # A scale so small that it is itself rounded gives larger quotients.
    np.clip(steps_THd, -_LARGEST_INT8, _LARGEST_INT8, out=steps_THd)
    return steps_THd.astype(np.int8), scale_TH


def dequantize(steps_THd: Array, scale_TH: Array) -> Array:
    return steps_THd.astype(np.float32) * scale_TH[..., None].astype(np.float32)
