"""Expert curves: the measured one where a device has it, else derived from its peaks."""

from statistics import fmean

from moe_placement.hardware.device import DeviceSpec, ExpertCurve, ExpertEfficiency, Plane
from moe_placement.hardware.section import HardwareError
from moe_placement.model.formats import FORMATS, find_format

# Permute, two grouped products, activation, and weighting of the rows.
_KERNELS_PER_LAYER = 4
# Reading and multiplying overlap in part: times add up as a norm of this order (1 would be their
# sum, infinity their maximum), of which a plane where both are equal is a lower bound.
_OVERLAP_ORDER = 1.5
# Kinds of formats that are unpacked on the way to a product in another one. Kernels that unpack
# FP4 exist for NVIDIA's devices only.
_UNPACKED = {"float16": "bfloat16", "int4": "bfloat16"}
_UNPACKED_ON_CUDA = {"fp4": "bfloat16"}


def supported_formats(device: DeviceSpec) -> tuple[str, ...]:
    """Weight formats whose experts the device can compute, natively or by unpacking them."""
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


def expert_curve(device: DeviceSpec, weight_format: str) -> ExpertCurve:
    """Seconds of one layer's routed experts with weights in a format.

    Raises:
        HardwareError: the device cannot compute with that format.
        FormatError: no such format.
    """
    measured = device.curves.get(find_format(weight_format).kind)
    return measured if measured is not None else derived_curve(device, weight_format)


def derived_curve(device: DeviceSpec, weight_format: str) -> ExpertCurve:
    """The same from peaks alone: a roofline with a rounded knee and the cost of the kernels.

    Raises:
        HardwareError: the device cannot compute with that format.
        FormatError: no such format.
    """
    products = product_format(device, weight_format)
    reached = _reached(device, products)
    per_byte = 1.0 / (device.bandwidth * reached.bandwidth)
    per_flop = 1.0 / (device.flops[products] * reached.compute)
    fixed = _KERNELS_PER_LAYER * device.kernel_latency
    both = 2.0 ** (1.0 / _OVERLAP_ORDER - 1.0)
    return ExpertCurve(
        (
            Plane(fixed, per_byte, 0.0),
            Plane(fixed, 0.0, per_flop),
            Plane(fixed, both * per_byte, both * per_flop),
        )
    )


def _product(device: DeviceSpec, kind: str) -> str | None:
    others = _UNPACKED | (_UNPACKED_ON_CUDA if device.kind == "cuda" else {})
    chosen = kind if kind in device.flops else others.get(kind)
    return chosen if chosen in device.flops else None


def _reached(device: DeviceSpec, kind: str) -> ExpertEfficiency:
    """A format that was not measured reaches what the measured ones do in the mean."""
    measured = device.expert_efficiency
    if kind in measured:
        return measured[kind]
    if not measured:
        return ExpertEfficiency(device.memory_efficiency, device.compute_efficiency)
    return ExpertEfficiency(
        fmean(share.bandwidth for share in measured.values()),
        fmean(share.compute for share in measured.values()),
    )
