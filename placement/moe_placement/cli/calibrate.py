"""Measure this machine, and write it as a device that cluster files may name."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_placement.cli.parser import UsageError

if TYPE_CHECKING:
    from moe_placement.cli.parser import Subparsers
    from moe_placement.hardware.measured_device import FitReport, Surroundings
    from moe_placement.hardware.units import Kind
    from moe_placement.report.table import Table

_MEASURED_BY = "moe_kernels.calibrate"
_PASSED_ON = ("device", "threads", "hidden", "expert_width", "experts", "formats", "seconds")


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("calibrate", help=__doc__, description=__doc__)
    add = parser.add_argument
    add("--device", default="cpu", metavar="KIND", help="cpu, cuda or npu; cpu")
    add("--threads", type=int, default=0, metavar="N", help="of a CPU; 0 is all that torch takes")
    add("--hidden", type=int, default=2048, metavar="D", help="width of the model to plan for")
    add("--expert-width", type=int, default=768, metavar="F", help="width of its experts")
    add("--experts", type=int, default=0, metavar="N", help="in memory; 0 is past the caches")
    add(
        "--formats",
        default="bfloat16,float32,int8",
        metavar="LIST",
        help="weight formats, by commas",
    )
    add("--seconds", type=float, default=30.0, metavar="S", help="time for the grid; 30")
    add("--link-latency", default="5us", metavar="TIME", help="in a node, not measured; 5us")
    add("--network-bandwidth", default="25GB/s", metavar="RATE", help="not measured; 25GB/s")
    add("--network-latency", default="10us", metavar="TIME", help="not measured; 10us")
    add(
        "--output",
        type=Path,
        default=Path("this_machine.yaml"),
        metavar="FILE.yaml",
        help="where to write; its stem names the device",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, write the device and print how well its curves fit; the exit code."""
    from moe_placement.cli.console import print_table
    from moe_placement.hardware.device_file import device_text
    from moe_placement.hardware.measured_device import measured_device

    around = _surroundings(options)
    if options.output.suffix not in (".yaml", ".yml") or not options.output.parent.is_dir():
        raise UsageError(f"--output is {options.output}; name a .yaml file in a folder that exists")
    measured = _measure(options)
    if measured is None:
        return 2
    device, reports = measured_device(options.output.stem, measured, around)
    try:
        options.output.write_text(device_text(device), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--output {options.output} cannot be written: {error.strerror}"
        ) from error
    print_table(
        _table(device.flops, reports, f"Wrote {options.output}: `device: {options.output}`")
    )
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any] | None:
    """What the measuring process printed; None where it failed, and said why on stderr."""
    if find_spec("torch") is None or find_spec("moe_kernels") is None:
        raise UsageError("calibrate measures with torch; pip install 'moe-serve[serve]'")
    passed = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in _PASSED_ON]
    done = subprocess.run(
        [sys.executable, "-m", _MEASURED_BY, *passed],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        # torch-npu, where it is installed, ends every process that loads torch without CANN.
        env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", **os.environ},
    )
    if done.returncode:
        return None
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _surroundings(options: argparse.Namespace) -> "Surroundings":
    from moe_placement.hardware.measured_device import Surroundings
    from moe_placement.hardware.units import BYTES_PER_SECOND, SECONDS

    return Surroundings(
        link_latency=_quantity(options.link_latency, SECONDS, "--link-latency"),
        network_bandwidth=_quantity(
            options.network_bandwidth, BYTES_PER_SECOND, "--network-bandwidth"
        ),
        network_latency=_quantity(options.network_latency, SECONDS, "--network-latency"),
    )


def _quantity(text: str, kind: "Kind[float]", option: str) -> float:
    value = kind.parse(text)
    if value is None:
        raise UsageError(f"{option} is {text!r}; write {kind.expected}")
    return value


def _table(flops: Mapping[str, float], reports: "Sequence[FitReport]", note: str) -> "Table":
    from moe_placement.report.table import Table

    rows = tuple(
        (
            report.weight_format,
            f"{flops[report.weight_format] / 1e12:.3g}",
            str(report.num_points),
            f"{report.median:.1%}",
            f"{report.worst:.1%}",
            str(report.num_held_out),
            f"{report.held_out_median:.1%}",
            f"{report.held_out_worst:.1%}",
        )
        for report in reports
    )
    header = ("Weights", "TFLOP/s", "Sizes", "Median", "Worst", "Held out", "Median", "Worst")
    return Table("Expert curves: error of the predicted time", header, rows, note)
