"""`moe_bench pools`: one model over unlike ranks: what was planned beside what was measured."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from moe_serve.bench.counting import counting
from moe_serve.bench.drift import drift, emulated_drift
from moe_serve.bench.phases import compare_phases, emulated_phases
from moe_serve.bench.pool_placement import compare_plans
from moe_serve.bench.record import record, write
from moe_serve.bench.table import Row, Rows, show
from moe_serve.bench.unlike import emulated, under_quotas
from moe_serve.errors import ConfigError

_MOST_OVERRUNS = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", nargs="+", default=list(_TABLES), metavar="NAME")
    parser.add_argument("--tokens", type=int, default=512, help="of one step")
    parser.add_argument("--steps", type=int, default=16, help="timed ones")
    parser.add_argument("--time-scale", type=float, default=8.0, help="of declared times")
    parser.add_argument("--quotas", type=float, nargs=3, default=[0.9, 0.45, 0.25])
    parser.add_argument("--stream-seconds", type=float, default=8.0, help="of declared time")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    """
    Raises:
        ConfigError: there is no such table, a table cannot be measured here, or its figures are
            refused; then nothing is written.
    """
    for name in options.tables:
        if name not in _TABLES:
            raise ConfigError(f"--tables: there is no {name!r}; use {', '.join(_TABLES)}")
    rows: Rows = []
    for name in options.tables:
        with tempfile.TemporaryDirectory() as folder:
            found = _TABLES[name](options, Path(folder))
        show(found)
        refuse_overruns(name, found)
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


def refuse_overruns(table: str, rows: Sequence[Row]) -> None:
    """
    Raises:
        ConfigError: emulated ranks could not keep their declared times, so figures say little.
    """
    worst = max((row["overruns"] for row in rows if "overruns" in row), default=0.0)
    if worst > _MOST_OVERRUNS:
        raise ConfigError(
            f"--tables {table}: the figures are refused: {worst:.1%} of the declared segments took "
            f"longer than declared, at most {_MOST_OVERRUNS:.0%} may; raise --time-scale, or run "
            "on a quiet machine"
        )


def _declared(options: argparse.Namespace, folder: Path) -> Rows:
    with emulated(options, folder) as unlike:
        return compare_plans(unlike, folder)


def _measured(options: argparse.Namespace, folder: Path) -> Rows:
    with under_quotas(options, folder) as unlike:
        return compare_plans(unlike, folder)


def _drifting(options: argparse.Namespace, folder: Path) -> Rows:
    return drift(emulated_drift(folder, options.time_scale), folder)


def _phases(options: argparse.Namespace, folder: Path) -> Rows:
    job = emulated_phases(folder, options.time_scale, options.stream_seconds)
    return compare_phases(job, folder)


def _counting(options: argparse.Namespace, folder: Path) -> Rows:
    return counting(folder, options.steps)


_TABLES: dict[str, Callable[[argparse.Namespace, Path], Rows]] = {
    "declared": _declared,
    "measured": _measured,
    "drift": _drifting,
    "phases": _phases,
    "counting": _counting,
}
