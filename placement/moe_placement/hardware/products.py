"""Which format a device multiplies in, for weights and caches that are kept in another one."""

from collections.abc import Mapping
from types import MappingProxyType

from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.section import HardwareError
from moe_placement.model.formats import FORMATS, find_format

# Kinds of formats that are unpacked on the way to a product in another one. Kernels that unpack
# FP4 exist for NVIDIA's devices only.
_UNPACKED: Mapping[str, str] = MappingProxyType(
    {"float16": "bfloat16", "int4": "bfloat16", "bfloat16": "float32"}
)
_UNPACKED_ON_CUDA: Mapping[str, str] = MappingProxyType({**_UNPACKED, "fp4": "bfloat16"})


def supported_formats(device: DeviceSpec) -> tuple[str, ...]:
    """Weight formats that the device can compute with, natively or by unpacking them."""
    return tuple(name for name, kept in FORMATS.items() if _product(device, kept.kind) is not None)


def product_format(device: DeviceSpec, weight_format: str) -> str:
    """The format, among the device's own, in which it multiplies weights kept in another one.

    Raises:
        HardwareError: it cannot; weights must be converted to one of `supported_formats`.
        FormatError: no such format.
    """
    chosen = _product(device, find_format(weight_format).kind)
    if chosen is None:
        raise HardwareError(
            f"{device.name} cannot compute with {weight_format} weights; convert them to one of "
            f"{', '.join(supported_formats(device))}"
        )
    return chosen


def attention_product(device: DeviceSpec, cache_format: str) -> str:
    """The same of a cache: attention unpacks any to 16 bits where it has no units for it.

    Raises:
        FormatError: no such format.
    """
    kinds = (find_format(cache_format).kind, "bfloat16")
    products = (_product(device, kind) for kind in kinds)
    return next((one for one in products if one is not None), next(iter(device.flops)))


def _product(device: DeviceSpec, kind: str) -> str | None:
    others = _UNPACKED_ON_CUDA if device.kind == "cuda" else _UNPACKED
    chosen: str | None = kind
    while chosen is not None and chosen not in device.flops:
        chosen = others.get(chosen)
    return chosen
