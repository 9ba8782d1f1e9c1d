"""Measures this machine through the kernel table and prints JSON, for `moe_plan calibrate`."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from moe_kernels.calibrate_measure import (
    ExpertShape,
    ExpertTimer,
    GridPoint,
    exchange_rate,
    grid,
    product_rate,
    stream_rate,
)
from moe_kernels.formats import FLOAT_FORMATS
from moe_kernels.table import select_ops

# Weights that stand in memory while experts are timed: several times the largest caches.
_CPU_WEIGHT_BYTES, _WEIGHT_BYTES = 256 << 20, 1 << 30
_MOST_EXPERTS = 256
_FEWEST_EXPERTS = 4
# A size whose first call and one more would take more than so many like shares is left out.
_MOST_SHARES = 4
# The smallest sizes are timed in any case: no curve can be fitted without them.
_NUM_ALWAYS = 24
# Where a container finds what it may use of its host's memory, in version 2 of cgroups and in 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with one line where a device or format cannot be measured here."""
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        device = _device(options.device)
        if device.type != "cpu" and not torch.accelerator.is_available():
            raise ValueError(f"device {options.device!r} is not on this machine; use cpu")
        print(json.dumps(measure(options, device)))
    except (ValueError, RuntimeError) as error:
        print(f"calibrate: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


def _check(options: argparse.Namespace) -> None:
    for name, least in (("hidden", 1), ("expert_width", 1), ("experts", 0), ("threads", 0)):
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is {getattr(options, name)}; give at least {least}")
    if not 0 < options.seconds < float("inf"):
        raise ValueError(f"--seconds is {options.seconds:g}; give a time above 0")


def _device(name: str) -> torch.device:
    """NEVER RUN ON HARDWARE YET for npu."""
    if name.partition(":")[0] == "npu":
        try:
            import_module("torch_npu")
        except (ImportError, OSError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(f"device {name!r} needs torch-npu and CANN: {first}") from error
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device {name!r} is not known to this torch; use cpu, cuda or npu"
        ) from error


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All figures of one device, as plain values."""
    if options.threads:
        torch.set_num_threads(options.threads)
    formats = options.formats.split(",")
    every_ops = {name: select_ops(device.type, name) for name in formats}
    result: dict[str, Any] = {
        "device": device.type,
        "processor": _processor(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_devices": torch.accelerator.device_count() if device.type != "cpu" else 1,
        "memory_bytes": _memory(device),
        "hidden": options.hidden,
        "expert_width": options.expert_width,
    }
    _say("memory")
    result["stream_bandwidth"] = stream_rate(device)
    result["exchange_bandwidth"] = exchange_rate(device)
    result["formats"] = {}
    for name, ops in every_ops.items():
        shape = _shape(options, name, device)
        _say(f"{name}: products")
        rate = product_rate(ops.linear, options.hidden, shape.dtype, device)
        timer = ExpertTimer(ops.experts, shape, device)
        points = list(_points(timer, shape, options.seconds / len(formats), name))
        result["formats"][name] = {"flops": rate, "points": points}
    return result


def _points(
    timer: ExpertTimer, shape: ExpertShape, seconds: float, name: str
) -> Iterator[dict[str, Any]]:
    """Each size gets a like share of the time left; sizes too large for theirs are left out."""
    deadline = time.perf_counter() + seconds
    sizes = grid(shape.count)
    row_seconds = 0.0
    num_skipped = 0
    for number, size in enumerate(sizes):
        share = (deadline - time.perf_counter()) / (len(sizes) - number)
        if number >= _NUM_ALWAYS and 2 * row_seconds * size.total > _MOST_SHARES * share:
            num_skipped += 1
            continue
        _say(f"{name}: {size.experts} experts, {size.rows} rows each ({number + 1}/{len(sizes)})")
        taken = timer.seconds(size, share)
        row_seconds = min(row_seconds or taken, taken / size.total)
        yield _point(size, shape, taken)
    left_out = f", {num_skipped} left out for time" if num_skipped else ""
    _say(f"{name}: {len(sizes) - num_skipped} sizes timed{left_out}", last=True)


def _point(size: GridPoint, shape: ExpertShape, seconds: float) -> dict[str, Any]:
    return {
        "experts": size.experts,
        "rows": size.rows,
        "bytes": size.experts * shape.bytes,
        "flops": 2 * size.total * shape.elements,
        "seconds": seconds,
        "held_out": size.held_out,
    }


def _shape(options: argparse.Namespace, name: str, device: torch.device) -> ExpertShape:
    dtype = getattr(torch, name if name in FLOAT_FORMATS else "bfloat16")
    one = ExpertShape(options.hidden, options.expert_width, 1, dtype, name)
    weight_bytes = _CPU_WEIGHT_BYTES if device.type == "cpu" else _WEIGHT_BYTES
    fitting = weight_bytes // one.bytes
    count = options.experts or max(_FEWEST_EXPERTS, min(_MOST_EXPERTS, fitting))
    return replace(one, count=count)


def _processor(device: torch.device) -> str:
    if device.type != "cpu":
        return str(torch.get_device_module(device).get_device_name(device))
    with_names = Path("/proc/cpuinfo")
    lines = with_names.read_text("utf-8").splitlines() if with_names.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory(device: torch.device) -> int:
    if device.type != "cpu":
        return int(torch.get_device_module(device).get_device_properties(device).total_memory)
    limits = [int(text) for file in _MEMORY_LIMITS if (text := _text(file)).isdecimal()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def _text(file: Path) -> str:
    return file.read_text("utf-8").strip() if file.exists() else ""


def _say(text: str, last: bool = False) -> None:
    """Progress on one line of a terminal; elsewhere only how it ended."""
    if sys.stderr.isatty():
        print(f"\r\x1b[Kcalibrate: {text}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(f"calibrate: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moe_kernels.calibrate", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or npu")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own")
    parser.add_argument("--hidden", type=int, default=2048, help="model width D")
    parser.add_argument("--expert-width", type=int, default=768, help="expert width F")
    parser.add_argument("--experts", type=int, default=0, help="in memory; 0 fills past the caches")
    parser.add_argument(
        "--formats", default="bfloat16,float32,int8", help="weight formats, by commas"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="time for the grid")
    return parser


if __name__ == "__main__":
    sys.exit(main())
