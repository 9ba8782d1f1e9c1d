"""Curves derived from peaks, beside measured times of one DeepSeek-V3 layer.

The times are of aiconfigurator-core's moe_perf tables (NVIDIA, Apache-2.0), SGLang, balanced
routing: a layer's 32 local experts of 256 under EP8, where `tokens` of the table bring 8 rows each
to this rank. The tables' own FLOP/s show that: with one row each, 4096 tokens on an A100 would
reach 11 TFLOP/s.
"""

from dataclasses import replace

import pytest
from moe_placement.hardware.catalogue import find_device, load_catalogue
from moe_placement.hardware.curves import derived_curve, expert_curve
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.hardware.products import attention_product, product_format, supported_formats
from moe_placement.hardware.section import HardwareError
from moe_placement.model.formats import format_bytes

TOKENS = (64, 256, 4096)
MILLISECONDS = {
    ("h100_sxm", "fp8"): (0.523, 0.602, 3.18),
    ("h200_sxm", "fp8"): (0.392, 0.481, 2.68),
    ("b200_sxm", "fp8"): (0.345, 0.379, 2.03),
    ("b200_sxm", "nvfp4"): (0.169, 0.178, 0.574),
    ("a100_sxm", "bfloat16"): (2.59, 3.43, 31.6),
}
NUM_EXPERTS = 32
EXPERT_ELEMENTS = 3 * 7168 * 2048
ROWS_PER_TOKEN = 8


def predicted(curve: ExpertCurve, weight_format: str, tokens: int) -> float:
    """Milliseconds of the layer: all experts are read."""
    num_bytes = NUM_EXPERTS * format_bytes(EXPERT_ELEMENTS, weight_format)
    return 1e3 * curve.seconds(num_bytes, 2 * tokens * ROWS_PER_TOKEN * EXPERT_ELEMENTS)


def worst_error(curve: ExpertCurve, device: str, weight_format: str) -> float:
    measured = MILLISECONDS[device, weight_format]
    return max(
        abs(predicted(curve, weight_format, tokens) / milliseconds - 1)
        for tokens, milliseconds in zip(TOKENS, measured, strict=True)
    )


@pytest.mark.parametrize(("device", "weight_format"), MILLISECONDS)
def test_derived_curves_are_near_measured_times(device: str, weight_format: str) -> None:
    curve = derived_curve(find_device(device), weight_format)
    assert worst_error(curve, device, weight_format) < 0.15


@pytest.mark.parametrize(
    ("device", "weight_format", "is_near"),
    [
        ("h200_sxm", "fp8", True),
        ("h100_sxm", "fp8", True),
        ("b200_sxm", "fp8", False),
        ("b200_sxm", "nvfp4", True),
        ("a100_sxm", "bfloat16", False),
    ],
)
def test_what_large_products_say_of_experts(device: str, weight_format: str, is_near: bool) -> None:
    """Without the efficiencies of grouped products, B200 at fp8 and A100 are off by half."""
    plain = replace(find_device(device), expert_efficiency={})
    error = worst_error(derived_curve(plain, weight_format), device, weight_format)
    assert (error < 0.40) == is_near
    assert is_near or error > 0.50


def test_the_same_efficiencies_hold_for_two_devices_of_a_kind() -> None:
    first, second = find_device("h100_sxm"), find_device("h200_sxm")
    assert first.expert_efficiency == second.expert_efficiency


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_more_work_never_takes_less_time(name: str) -> None:
    device = find_device(name)
    for weight_format in supported_formats(device):
        curve = derived_curve(device, weight_format)
        idle = curve.seconds(0, 0)
        few, many = predicted(curve, weight_format, 1), predicted(curve, weight_format, 65536)
        assert 0 < idle < few / 1e3 < many / 1e3
        assert curve.seconds(1e9, 1e12) < curve.seconds(2e9, 2e12) < 2 * curve.seconds(1e9, 1e12)


def test_the_knee_is_rounded_but_no_more_than_a_sum() -> None:
    curve = derived_curve(find_device("h200"), "fp8")
    read, product, _ = curve.planes
    num_bytes, num_flops = 1 / read.per_byte, 1 / product.per_flop
    assert curve.seconds(num_bytes, 0) == curve.seconds(0, num_flops) == 1 + read.fixed
    assert 1.5 < curve.seconds(num_bytes, num_flops) < 2.0


def test_a_measured_curve_comes_first() -> None:
    curve = ExpertCurve((Plane(1.0, 0.0, 0.0),))
    device = replace(find_device("h200"), curves={"fp8": curve})
    assert expert_curve(device, "fp8") is expert_curve(device, "fp8_channel") is curve
    assert expert_curve(device, "bfloat16") == derived_curve(device, "bfloat16")


@pytest.mark.parametrize(
    ("device", "weight_format", "product"),
    [
        ("h200", "fp8", "fp8"),
        ("h200", "int4", "bfloat16"),
        ("h200", "mxfp4", "bfloat16"),
        ("b200", "mxfp4", "fp4"),
        ("h200", "float16", "bfloat16"),
        ("atlas_a2_376t", "float16", "float16"),
        ("atlas_a2_376t", "int4_group32", "bfloat16"),
        ("epyc_9965", "int8", "int8"),
    ],
)
def test_formats_that_are_unpacked(device: str, weight_format: str, product: str) -> None:
    assert product_format(find_device(device), weight_format) == product
    assert weight_format in supported_formats(find_device(device))


@pytest.mark.parametrize(
    ("device", "weight_format"),
    [("atlas_a2_376t", "fp8"), ("910c", "nvfp4"), ("a100", "fp8"), ("h200", "float32")],
)
def test_formats_that_must_be_converted(device: str, weight_format: str) -> None:
    found = find_device(device)
    assert weight_format not in supported_formats(found)
    with pytest.raises(HardwareError, match=f"cannot compute with {weight_format}.*bfloat16"):
        expert_curve(found, weight_format)


def test_what_is_unpacked_to_16_bits_is_unpacked_to_32_where_there_are_no_others() -> None:
    plain = replace(find_device("epyc_9965"), flops={"float32": 1e12})
    assert {product_format(plain, name) for name in ("int4", "float16", "bfloat16")} == {"float32"}
    assert "int8" not in supported_formats(plain)


@pytest.mark.parametrize(
    ("device", "cache_format", "product"),
    [
        ("h200", "fp8", "fp8"),
        ("a100", "fp8", "bfloat16"),
        ("h200", "float32", "bfloat16"),
        ("epyc_9965", "float32", "float32"),
    ],
)
def test_a_cache_is_unpacked_where_weights_would_be_refused(
    device: str, cache_format: str, product: str
) -> None:
    assert attention_product(find_device(device), cache_format) == product


def test_unpacked_weights_save_reading_but_no_products() -> None:
    device = find_device("h200")
    small, large = derived_curve(device, "int4"), derived_curve(device, "bfloat16")
    assert predicted(small, "int4", 1) < 0.3 * predicted(large, "bfloat16", 1)
    assert predicted(small, "int4", 65536) == predicted(large, "bfloat16", 65536)


def test_a_format_that_was_not_measured_is_no_faster_than_those_that_were() -> None:
    device = find_device("b200")
    wide, narrow = derived_curve(device, "bfloat16"), derived_curve(device, "fp8")
    assert wide.seconds(0, 1e13) > narrow.seconds(0, 1e13)
