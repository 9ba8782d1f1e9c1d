"""What a device and an engine bring to a step's price, before any coefficient."""

from dataclasses import dataclass

from moe_placement.cost.coefficients import ENGINES, Coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.products import attention_product, product_format
from moe_placement.model.formats import attention_format, find_format
from moe_placement.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTerms:
    """Peaks of one device for one model's formats; floats alone, as in StepWork.

    Attributes:
        bandwidth: peak bytes/s.
        dense_peak: FLOP/s of products in the format of the weights that all tokens use.
        expert_peak: in the experts' format.
        attention_peak: of prefill attention, which is in 16 bits.
        decode_peak: of decode attention, which is in the cache's format.
        narrow: 1 where experts are multiplied in 4 bits, else 0.
        wide: 1 where they are kept in 8 bits, else 0.
        newer: 1 where the device has FP4 units, else 0.
        reduce_seconds: for each byte of an all-reduce, at the link's peak.
        exchange_seconds: for each byte sent to another attention group.
        vllm: weight of this engine's terms; the three sum to 1.
    """

    bandwidth: float
    dense_peak: float
    expert_peak: float
    attention_peak: float
    decode_peak: float
    narrow: float
    wide: float
    newer: float
    reduce_seconds: float
    exchange_seconds: float
    vllm: float
    sglang: float
    trtllm: float


def step_terms(
    spec: ModelSpec,
    device: DeviceSpec,
    parallelism: Parallelism,
    weight_format: str,
    kv_format: str,
    engine: str,
) -> StepTerms:
    """Terms of one device under one engine; an unknown engine is the mean of those known.

    Raises:
        HardwareError: the device cannot compute with these weights.
    """
    dense_format = attention_format(weight_format, has_experts=bool(spec.num_experts))
    expert_product = product_format(device, weight_format)
    shares = {
        name: float(name == engine) if engine in ENGINES else 1 / len(ENGINES) for name in ENGINES
    }
    return StepTerms(
        bandwidth=device.bandwidth,
        dense_peak=device.flops[product_format(device, dense_format)],
        expert_peak=device.flops[expert_product],
        attention_peak=device.flops[attention_product(device, "bfloat16")],
        decode_peak=device.flops[attention_product(device, kv_format)],
        narrow=float(expert_product == "fp4"),
        wide=float(find_format(weight_format).bits == 8),
        newer=float("fp4" in device.flops),
        reduce_seconds=_seconds_per_byte(device, parallelism.tensor_parallel),
        exchange_seconds=_seconds_per_byte(device, parallelism.devices_per_stage),
        **shares,
    )


def of_engine(terms: StepTerms, coefficients: Coefficients, name: str) -> float:
    """The coefficient `name` of the engine, which has one for each engine."""
    shares = (getattr(terms, engine) for engine in ENGINES)
    values = (getattr(coefficients, f"{name}_{engine}") for engine in ENGINES)
    total: float = sum(share * value for share, value in zip(shares, values, strict=True))
    return total


def _seconds_per_byte(device: DeviceSpec, num_devices: int) -> float:
    """Of the mean byte that one of `num_devices` sends to the others."""
    near = device.devices_per_domain or device.devices_per_node
    away = max(0.0, 1 - near / num_devices)
    return (1 - away) / device.link_bandwidth + away / device.network_bandwidth
