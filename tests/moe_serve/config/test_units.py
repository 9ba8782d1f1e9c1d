"""Sizes, rates and times as people write them."""

from decimal import Decimal

import pytest

from moe_serve.config.units import BYTES, BYTES_PER_SECOND, SECONDS


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1TiB", 2**40),
        ("80GiB", 80 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("512MB", 512 * 10**6),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("7", 7),
        ("7B", 7),
        ("1e9", 10**9),
        (" 3PiB ", 3 * 2**50),
        ("80Gb", None),
        ("80gib", None),
        ("GiB", None),
        ("-1GiB", None),
        ("1.2.3GiB", None),
        ("25GB/s", None),
    ],
)
def test_sizes(text: str, count: int | None) -> None:
    assert BYTES.parse(text) == count


def test_rates_and_times() -> None:
    assert BYTES_PER_SECOND.parse("25GB/s") == 25 * 10**9
    assert BYTES_PER_SECOND.parse("25GB") is None
    assert SECONDS.parse("5us") == Decimal("5e-6") == SECONDS.parse("5µs")
    assert SECONDS.parse("3ms") == Decimal("3e-3")
    assert SECONDS.parse("2 s") == 2
    assert SECONDS.parse("5") is None
