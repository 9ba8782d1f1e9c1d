"""`moe_bench simulator`: how fast the planner's simulator is, by scheduler."""

import argparse
from pathlib import Path
from typing import Any

from moe_placement.bench.simulator import SchedulingSpeed, measure_scheduling, measure_trace
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.scheduler_choice import find_scheduler
from moe_placement.simulator.trace_fields import TraceError
from moe_placement.simulator.traces import read_trace
from rich.console import Console
from rich.table import Table

from moe_serve.bench.record import record, write
from moe_serve.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedulers", nargs="+", default=["stand-in", "engine"])
    parser.add_argument("--sequences", type=int, default=64, help="that one rank runs at once")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--trace", type=Path, help="a request trace to simulate whole, besides")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    try:
        rows = [row for name in options.schedulers for row in _measure(name, options)]
    except (SimulationError, TraceError) as error:
        raise ConfigError(str(error)) from error
    _print(rows)
    if options.json:
        parameters = {"sequences": options.sequences, "trace": str(options.trace or "")}
        write(options.json, record("simulator", parameters, rows))
    return 0


def _measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    speed = measure_scheduling(
        find_scheduler(name), num_steps=options.steps, num_sequences=options.sequences
    )
    rows = [_row(f"{options.sequences} sequences", name, speed)]
    if options.trace:
        traced, simulated = measure_trace(read_trace(options.trace), name)
        rows.append(_row(f"{options.trace.name}, {simulated:,.0f} s", name, traced))
    return rows


def _row(what: str, scheduler: str, speed: SchedulingSpeed) -> dict[str, Any]:
    return {
        "what": what,
        "scheduler": scheduler,
        "steps": speed.num_steps,
        "requests": speed.num_requests,
        "seconds": speed.seconds,
        "CPU seconds": speed.cpu_seconds,
        "steps a CPU minute": speed.steps_per_minute,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Simulator")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("what", "scheduler") else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
