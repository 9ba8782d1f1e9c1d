"""`moe_bench slices`: several models on the same ranks, their shares, latency, memory, packing."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from moe_serve.bench.record import record, write
from moe_serve.bench.slices_changes import changes
from moe_serve.bench.slices_idle import idle
from moe_serve.bench.slices_machine import machine
from moe_serve.bench.slices_memory import memory
from moe_serve.bench.slices_packing import packing
from moe_serve.bench.slices_shares import shares
from moe_serve.bench.slices_victim import victim
from moe_serve.bench.table import Rows, show
from moe_serve.errors import ConfigError

_TABLES: dict[str, Callable[[Path, float], Rows]] = {
    "machine": machine,
    "shares": shares,
    "victim": victim,
    "memory": memory,
    "packing": packing,
    "idle": idle,
    "changes": changes,
}
_LEAST_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", nargs="+", default=list(_TABLES), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run that is measured")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    for name in options.tables:
        if name not in _TABLES:
            raise ConfigError(f"--tables: there is no {name!r}; use {', '.join(_TABLES)}")
    if options.seconds < _LEAST_SECONDS:
        raise ConfigError(
            f"--seconds: windows are up to {_LEAST_SECONDS:g} s, a run of {options.seconds:g} s "
            "has none; ask for more"
        )
    rows: Rows = []
    for name in options.tables:
        with tempfile.TemporaryDirectory() as folder:
            found = _TABLES[name](Path(folder), options.seconds)
        show(found)
        rows += [{"table": name, **row} for row in found]
    if options.json:
        write(options.json, record("slices", {"seconds": options.seconds}, rows))
    return 0
