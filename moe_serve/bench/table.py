"""The rows of benchmarks, whether they are what they should be, and how they look on a terminal."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
Rows = list[Row]

_WIDTH = 150


def target(
    figure: str, window: str, measured: float, limit: float, *, at_least: bool = False
) -> Row:
    """A row that says whether a figure is what it should be.

    Args:
        window: over which time or times it was taken.
        limit: the most that it may be, or the least.
    """
    is_met = measured >= limit if at_least else measured <= limit
    return {
        "of": "targets",
        "figure": figure,
        "window": window,
        "measured": float(measured),
        "target": f"{'>=' if at_least else '<='} {limit:g}",
        "met": "yes" if is_met else "no",
    }


def show(rows: Sequence[Row]) -> None:
    """A table for each title, which neighbouring rows have in `of`."""
    console = Console(width=_WIDTH)
    for title, group in groupby(rows, key=lambda row: str(row["of"])):
        console.print(_table(title, list(group)))


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    columns = [column for column in rows[0] if column != "of"]
    for column in columns:
        numbers = all(isinstance(row[column], int | float) for row in rows)
        table.add_column(column.replace(" ms", "\nms"), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    return table


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
