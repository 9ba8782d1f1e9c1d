"""`moe_bench pools`: one model over unlike ranks: what was planned beside what was measured."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_serve.bench.drift import DriftJob, drift
from moe_serve.bench.phases import compare_phases, emulated_phases
from moe_serve.bench.pool_placement import compare_plans
from moe_serve.bench.record import record, write
from moe_serve.bench.unlike import declare_device, emulated, under_quotas
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config
from moe_serve.errors import ConfigError

_MOST_OVERRUNS = 0.05

Rows = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", nargs="+", default=list(_TABLES), metavar="NAME")
    parser.add_argument("--tokens", type=int, default=512, help="of one step")
    parser.add_argument("--steps", type=int, default=16, help="timed ones")
    parser.add_argument("--time-scale", type=float, default=8.0, help="of declared times")
    parser.add_argument("--quotas", type=float, nargs=3, default=[0.9, 0.45, 0.25])
    parser.add_argument("--stream-seconds", type=float, default=8.0, help="of declared time")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    for name in options.tables:
        if name not in _TABLES:
            raise ConfigError(f"--tables: there is no {name!r}; use {', '.join(_TABLES)}")
    rows: Rows = []
    for name in options.tables:
        with tempfile.TemporaryDirectory() as folder:
            found = _TABLES[name](options, Path(folder))
        _print(found)
        rows += [{"table": name, **row} for row in found]
    if options.json:
        parameters = {
            "tokens": options.tokens,
            "steps": options.steps,
            "time_scale": options.time_scale,
            "quotas": options.quotas,
            "stream_seconds": options.stream_seconds,
        }
        write(options.json, record("pools", parameters, rows))
    return 0


def _declared(options: argparse.Namespace, folder: Path) -> Rows:
    with emulated(options, folder) as unlike:
        return compare_plans(unlike, folder)


def _measured(options: argparse.Namespace, folder: Path) -> Rows:
    with under_quotas(options, folder) as unlike:
        return compare_plans(unlike, folder)


def _drifting(options: argparse.Namespace, folder: Path) -> Rows:
    model = folder / "model"
    write_checkpoint(model, demo_config())
    hardware = declare_device(folder / "rank.yaml", speed=1.0)
    job = DriftJob(model=model, hardware=hardware, time_scale=options.time_scale)
    title = "routing that drifts, emulated; tokens of prompts and answers"
    return [{"of": title, **row} for row in drift(job, folder)]


def _phases(options: argparse.Namespace, folder: Path) -> Rows:
    job = emulated_phases(folder, options.time_scale, options.stream_seconds)
    return compare_phases(job, folder)


_TABLES: dict[str, Callable[[argparse.Namespace, Path], Rows]] = {
    "declared": _declared,
    "measured": _measured,
    "drift": _drifting,
    "phases": _phases,
}


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """Refuses the figures of emulated ranks that could not keep their declared times."""
    table = Table(title=rows[0]["of"])
    columns = [column for column in rows[0] if column != "of"]
    for column in columns:
        table.add_column(column.replace(" ms", "\nms").replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    console = Console(width=150)
    console.print(table)
    worst = max(row["overruns"] for row in rows)
    if worst > _MOST_OVERRUNS:
        console.print(
            f"refused: {worst:.1%} of the declared segments took longer than declared, at most "
            f"{_MOST_OVERRUNS:.0%} may; raise --time-scale, or run on a quiet machine"
        )


def _cell(column: str, value: Any) -> str:
    if column == "overruns":
        return f"{value:.1%}"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
