"""Benchmarks; each module is a table or a command of `moe_bench`."""

import os

# Where torch-npu is installed, torch loads it for every process, and dies where there is no CANN.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
