"""A device file as a user would write it."""

from collections.abc import Callable
from pathlib import Path

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
