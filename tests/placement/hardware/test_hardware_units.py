"""Quantities are read as people write them, and nothing else is."""

import pytest
from moe_placement.hardware.units import BYTES, BYTES_PER_SECOND, COUNT, FLOPS, SECONDS, SHARE, Kind


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (BYTES, "80GiB", 80 * 2**30),
        (BYTES, "512 MB", 512_000_000),
        (BYTES, 1024, 1024),
        (BYTES, "1.5KiB", 1536),
        (BYTES_PER_SECOND, "25GB/s", 25e9),
        (BYTES_PER_SECOND, "4.8TB/s", 4.8e12),
        (FLOPS, "989TFLOP/s", 989e12),
        (FLOPS, "1e15", 1e15),
        (SECONDS, "5us", 5e-6),
        (SECONDS, "2ms", 2e-3),
        (SECONDS, 0, 0.0),
        (COUNT, 3, 3),
        (SHARE, 0.7, 0.7),
    ],
)
def test_quantities_with_units(kind: Kind[float], text: object, number: float) -> None:
    assert kind.parse(text) == number


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (BYTES, "80Gb"),
        (BYTES, "GiB"),
        (BYTES, "-1GiB"),
        (BYTES, 0),
        (BYTES, True),
        (BYTES_PER_SECOND, "25GB"),
        (BYTES_PER_SECOND, 0.0),
        (BYTES_PER_SECOND, float("inf")),
        (FLOPS, "989T"),
        (SECONDS, "5 minutes"),
        (SECONDS, "1e999"),
        (BYTES, "1e999999999GB"),
        (BYTES, 10**400),
        (SECONDS, float("nan")),
        (COUNT, 0),
        (COUNT, 2.0),
        (COUNT, True),
        (SHARE, 1.01),
        (SHARE, "0"),
        (SHARE, None),
    ],
)
def test_what_is_no_such_quantity(kind: Kind[float], text: object) -> None:
    assert kind.parse(text) is None
