"""A device file as a user would write it, and what a calibration prints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

WriteFile = Callable[..., Path]

ONE_DEVICE = """
devices:
  bench:
    kind: cpu
    flops: {bfloat16: 2TFLOP/s, int8: 4TFLOP/s}
    memory_bytes: 64GiB
    bandwidth: 100GB/s
    link_bandwidth: 20GB/s
    link_latency: 5us
    network_bandwidth: 10GB/s
    network_latency: 20us
"""
EXPERT_BYTES = 2 * 3 * 2048 * 768


def point(experts: int, rows: int, held_out: bool) -> dict[str, Any]:
    """Reading at 20 GB/s, multiplying at 200 GFLOP/s, one after the other, and 0.1 ms."""
    num_bytes, num_flops = experts * EXPERT_BYTES, experts * rows * EXPERT_BYTES
    return {
        "experts": experts,
        "rows": rows,
        "bytes": num_bytes,
        "flops": num_flops,
        "seconds": 1e-4 + num_bytes / 20e9 + num_flops / 200e9,
        "held_out": held_out,
    }


def measurement(num_experts: int = 4) -> dict[str, Any]:
    seen = [point(1 << power, rows, False) for power in range(num_experts) for rows in (1, 8, 64)]
    unseen = [point(3, rows, True) for rows in (4, 32)]
    return {
        "device": "cpu",
        "processor": "Made Up 9000",
        "threads": 2,
        "torch": "2.13.0",
        "date": "2026-01-01T00:00:00+00:00",
        "num_devices": 1,
        "memory_bytes": 64 << 30,
        "hidden": 2048,
        "expert_width": 768,
        "stream_bandwidth": 25e9,
        "exchange_bandwidth": 10e9,
        "formats": {"bfloat16": {"flops": 220e9, "points": seen + unseen}},
    }
