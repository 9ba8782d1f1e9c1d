"""Expert curves: the measured one where a device has it, else derived from its peaks."""

from statistics import fmean

from moe_placement.hardware.device import DeviceSpec, ExpertCurve, ExpertEfficiency, Plane
from moe_placement.hardware.products import product_format
from moe_placement.model.formats import find_format

# Permute, two grouped products, activation, and weighting of the rows.
_KERNELS_PER_LAYER = 4
# Reading and multiplying overlap in part: times add up as a norm of this order (1 would be their
# sum, infinity their maximum), of which a plane where both are equal is a lower bound.
_OVERLAP_ORDER = 1.5


def measured_curve(device: DeviceSpec, weight_format: str) -> ExpertCurve | None:
    """What the device was seen to need with weights of a format, if it was.

    Raises:
        FormatError: no such format.
    """
    return device.curves.get(find_format(weight_format).kind)


def expert_curve(device: DeviceSpec, weight_format: str) -> ExpertCurve:
    """Seconds of one layer's routed experts with weights in a format.

    Raises:
        HardwareError: the device cannot compute with that format.
        FormatError: no such format.
    """
    measured = measured_curve(device, weight_format)
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
