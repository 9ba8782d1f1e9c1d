"""What people see: tables on stdout, and on stderr a progress bar while a search is long."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from moe_placement.report.table import Table

_PLAIN_WIDTH = 200


def print_table(table: Table) -> None:
    """As wide as the terminal; elsewhere as wide as the table needs."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    shown = RichTable(box=SIMPLE_HEAD)
    for index, name in enumerate(table.header):
        is_name = index < table.num_names
        shown.add_column(
            name, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name
        )
    for row in table.rows:
        shown.add_row(*map(_plain, row))
    console.print(_plain(table.title), style="bold")
    console.print(shown)
    if table.note:
        console.print(_plain(table.note))


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """A label and a text on each line."""
    width = max(len(label) for label, _ in pairs)
    print("\n".join(f"  {label:<{width}}  {text}" for label, text in pairs), end="\n\n")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is told what is done, how much of it, of how much; none off a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda what, done, total: bar.update(
            task, description=f"{title}: {what}", completed=done, total=total
        )


def _plain(text: str) -> str:
    """Square brackets are no markup."""
    from rich.markup import escape

    return escape(text)
