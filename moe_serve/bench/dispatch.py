"""`moe_bench dispatch`: seconds of dispatch and combine between ranks, beside a bare exchange."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_serve.bench.record import record, write
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.errors import ConfigError
from moe_serve.huge_pages import ask_for_huge_pages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 32, 128, 512])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--chosen", type=int, default=8, help="experts of each token")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--collective", nargs="+", default=["mpi", "gloo"])
    parser.add_argument("--repeats", type=int, default=200, help="the median counts")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    parameters = {
        key: getattr(options, key)
        for key in ("tokens", "width", "experts", "chosen", "dtype", "repeats")
    }
    # The ranks inherit it, as those of a server have it.
    ask_for_huge_pages()
    rows: list[dict[str, Any]] = []
    for ranks in options.ranks:
        for collective in options.collective if ranks > 1 else ["local"]:
            rows += _measure(ranks, {**parameters, "collective": collective})
    _print(rows)
    if options.json:
        write(options.json, record("dispatch", parameters, rows))
    return 0


def _measure(ranks: int, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "moe_serve.bench.dispatch_worker", json.dumps(parameters)]
    if ranks > 1:
        command = mpirun_command(ranks, command)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=mpirun_environment() if ranks > 1 else None
    )
    if done.returncode != 0:
        raise ConfigError(f"{ranks} ranks ended with exit code {done.returncode}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="dispatch and combine of one layer, microseconds (median)")
    columns = list(rows[0])
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            *(f"{row[c]:.1f}" if isinstance(row[c], float) else str(row[c]) for c in columns)
        )
    Console().print(table)
