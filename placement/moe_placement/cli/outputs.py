"""What a found plan becomes: tables or JSON on stdout, a page, a picture, an engine config."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moe_placement.capacity.answer import ParetoPoint
from moe_placement.cli.asked import Asked
from moe_placement.cli.console import print_pairs, print_table
from moe_placement.cli.exchange import read_export, write_export
from moe_placement.cli.parser import UsageError
from moe_placement.report.engine_config import config_text, plan_path, write_config
from moe_placement.report.expert_load import LoadSpread, load_spread
from moe_placement.report.solution_json import solution_values
from moe_placement.report.solution_tables import (
    alternatives_table,
    choices_table,
    memory_table,
    pools_table,
    summary,
)
from moe_placement.solver.solution import Solution


@dataclass(frozen=True, slots=True)
class Found:
    """A plan, and the trade-off that it was chosen from, where that was worked out."""

    solution: Solution
    front: tuple[ParetoPoint, ...] = ()


def show(found: Found, asked: Asked, options: argparse.Namespace) -> None:
    """Print what was found and write the files that were asked for.

    Raises:
        UsageError: a file cannot be written.
    """
    written = _write(found, asked, options)
    if options.json:
        print(json.dumps(_values(found, asked), indent=2))
        return
    _print(found.solution, asked)
    for path in written:
        print(f"wrote {path}")


def _write(found: Found, asked: Asked, options: argparse.Namespace) -> list[Path]:
    """The files that were asked for, before anything is printed: who reads may stop early."""
    written: list[Path] = []
    for option, write in _WRITERS.items():
        path = getattr(options, option, None)
        if path is None:
            continue
        try:
            written += write(path, found, asked, options.command_line)
        except OSError as error:
            raise UsageError(f"--{option} {path}: cannot be written: {error.strerror}") from error
    return written


def _values(found: Found, asked: Asked) -> dict[str, Any]:
    devices = {group.name: group.num_devices for group in asked.cluster.groups}
    return {
        "devices": devices,
        "workload": asdict(asked.workload),
        "objective": asdict(asked.objective),
        **solution_values(found.solution),
        "pareto": [asdict(point) for point in found.front],
    }


def _print(solution: Solution, asked: Asked) -> None:
    print(asked.title)
    print(asked.sentence)
    print_pairs(summary(solution))
    for table in (
        alternatives_table(solution.alternatives),
        choices_table(solution),
        pools_table(solution.plan),
        memory_table(solution.memories),
    ):
        print_table(table)


def _write_page(path: Path, found: Found, asked: Asked, command: str) -> list[Path]:
    from moe_placement.report.page import ReportContext, solution_page

    context = ReportContext(
        title=asked.title,
        command=command,
        workload=asked.sentence,
        objective=asked.objective,
        spread=_spread(found.solution, asked),
        front=found.front,
    )
    path.write_text(solution_page(found.solution, context), encoding="utf-8")
    return [path]


def _write_plot(path: Path, found: Found, asked: Asked, command: str) -> list[Path]:
    from moe_placement.report.plots import save_png

    spread = _spread(found.solution, asked)
    save_png(path, found.solution.alternatives, asked.objective, spread, found.front)
    return [path]


def _write_config(path: Path, found: Found, asked: Asked, command: str) -> list[Path]:
    text = config_text(
        found.solution.plan,
        model=asked.model,
        cluster=asked.cluster,
        memories=found.solution.memories,
        constraints=asked.constraints,
        max_context=asked.constraints.max_context or asked.spec.context_length,
        plan_file=plan_path(path).name,
        made_by=command,
    )
    return [path, write_config(path, text, found.solution.plan)]


def _write_export(text: str, found: Found, asked: Asked, command: str) -> list[Path]:
    export = read_export(text)
    lost = write_export(export, found.solution.plan)
    if lost:
        print(f"moe_plan: warning: {lost}", file=sys.stderr)
    return [export.path]


def _spread(solution: Solution, asked: Asked) -> LoadSpread | None:
    if asked.load is None or not solution.plan.layers:
        return None
    return load_spread(solution.plan, asked.load.shares)


_WRITERS: dict[str, Callable[..., list[Path]]] = {
    "report": _write_page,
    "plot": _write_plot,
    "output": _write_config,
    "export": _write_export,
}
