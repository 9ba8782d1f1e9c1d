"""Pack slices of models onto devices, beside what is there: who sits where, and what is short."""

import argparse
import ctypes
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from moe_placement.cli.parser import UsageError

if TYPE_CHECKING:
    from moe_placement.cli.packed import Packed
    from moe_placement.cli.parser import Subparsers
    from moe_placement.packing.serve_config import ServeTenants
    from moe_placement.packing.slices import PackDevice, PackItem


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("pack", help=__doc__, description=__doc__)
    add = parser.add_argument
    add(
        "file",
        type=Path,
        metavar="FILE.yaml",
        help="`slices:` and `devices:` (see configs/packing/), or a moe_serve config",
    )
    cluster = parser.add_mutually_exclusive_group()
    cluster.add_argument(
        "--cluster", type=Path, metavar="FILE", help="YAML file; see configs/clusters/"
    )
    cluster.add_argument(
        "--devices",
        metavar="NAME:COUNT,...",
        help="devices from the catalogue, where the file names none; of a config, one for each "
        "rank",
    )
    add(
        "--objective",
        choices=("fewest", "even"),
        help="open the fewest devices, or use the fullest as little as can be; fewest for slices, "
        "even for a config, as moe_serve does it",
    )
    add(
        "--overcommit",
        type=float,
        default=1.0,
        metavar="X",
        help="how many times less than their shares bursty slices count; 1, which is not at all",
    )
    add(
        "--time-limit",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds for each integer program; 5",
    )
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print JSON")
    add(
        "--out",
        type=Path,
        metavar="FILE.yaml",
        help="the moe_serve config with the rank of each packed model, beside the one read",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pack, write and print; 1 where something has no room.

    Raises:
        UsageError: an option that is out of range, or a file that cannot be written.
    """
    from moe_placement.cli.packed import check_out, show, write_config

    if not (math.isfinite(options.overcommit) and options.overcommit >= 1):
        raise UsageError(f"--overcommit is {options.overcommit:g}; it must be at least 1")
    if not options.time_limit >= 0:
        raise UsageError(f"--time-limit is {options.time_limit:g}; it must be at least 0")
    if options.out is not None:
        check_out(options.file, options.out)
    packed = _pack(options)
    if options.out is not None:
        write_config(options.out, packed, options.command_line)
    show(packed, as_json=options.json)
    return 1 if packed.packing.unplaced else 0


def _pack(options: argparse.Namespace) -> "Packed":
    from moe_placement.cli.packed import Packed
    from moe_placement.packing.equal_parts import with_equal_parts
    from moe_placement.packing.pack import pack

    items, devices, tenants = _read(options)
    began = perf_counter()
    with _solver_on_stderr():
        packing = pack(
            items,
            devices,
            time_limit=options.time_limit,
            objective=options.objective or ("fewest" if tenants is None else "even"),
            overcommit=options.overcommit,
            seed=options.seed,
        )
    seconds = perf_counter() - began
    if tenants is not None:
        packing, items = with_equal_parts(packing, tenants)
    return Packed(packing, items, devices, options.file, seconds)


def _read(
    options: argparse.Namespace,
) -> "tuple[Sequence[PackItem], Sequence[PackDevice], ServeTenants | None]":
    """Slices and devices; from a config also who of its tenants says no share."""
    from moe_placement.cli.inputs import read_cluster
    from moe_placement.hardware.section import read_section
    from moe_placement.packing.serve_config import read_tenants
    from moe_placement.packing.slices_file import read_slices

    cluster = read_cluster(options) if options.cluster or options.devices else None
    document = read_section(options.file)
    if "slices" in document.left:
        if options.out is not None:
            raise UsageError(
                f"--out {options.out}: only a moe_serve config has ranks to set, and "
                f"{options.file} lists slices; leave the option out"
            )
        return *read_slices(document, cluster), None
    if "models" not in document.left:
        raise UsageError(
            f"{options.file}: has neither slices nor models; write slices and devices, or name a "
            "moe_serve config with models"
        )
    tenants = read_tenants(document, cluster)
    return tenants.items, tenants.devices, tenants


@contextmanager
def _solver_on_stderr() -> Iterator[None]:
    """HiGHS 1.12 prints a line now and then whatever it is told, which would stand inside JSON."""
    if os.name != "posix":
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
