"""`moe_bench placement`: the expert solver beside EPLB, on load given and on load that follows."""

import argparse
from pathlib import Path
from typing import Any

from moe_placement.bench.placement import BENCHMARKS, title
from rich.console import Console
from rich.table import Table

from moe_serve.bench.record import record, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="all by default")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    names = options.only or list(BENCHMARKS)
    rows: list[dict[str, Any]] = []
    for name in names:
        found = list(BENCHMARKS[name]())
        _print(title(name), found)
        rows += [{"benchmark": name, **row} for row in found]
    if options.json:
        write(options.json, record("placement", {"only": names}, rows))
    return 0


def _print(heading: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=heading)
    columns = list(rows[0])
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console().print(table)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
