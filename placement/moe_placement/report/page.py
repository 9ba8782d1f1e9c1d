"""One HTML page for a Solution: no scripts, nothing from the network, all text escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from moe_placement.capacity.answer import ParetoPoint
from moe_placement.report.expert_load import LoadSpread
from moe_placement.report.plots import load_figure, pareto_figure, svg_text
from moe_placement.report.solution_tables import (
    alternatives_table,
    choices_table,
    memory_table,
    pools_table,
    summary,
)
from moe_placement.report.table import Table
from moe_placement.serving.workload import Objective
from moe_placement.solver.solution import Solution

_CSS = """
:root { --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --mark: #0b5cad; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9aa5b1; --line: #30363d; --mark: #6cb6ff; --page: #0d1117; }
  svg { background: #fff; border-radius: 6px; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
  background: var(--page); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, dd { max-width: 44rem; }
.by, .note, dt { color: var(--dim); font-size: .875rem; }
code { font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 12rem 1fr; gap: .35rem 1rem; margin: 1.5rem 0; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--dim); }
.figure { text-align: right; white-space: nowrap; }
tr.first td { color: var(--mark); font-weight: 600; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """What a page says beside the solution.

    Attributes:
        title: as in `DeepSeek-V3 on 32 x h200_sxm`.
        command: that made it.
        workload: a sentence on what is asked.
        spread: None where no expert load was given.
        front: of the trade-off, where it was worked out.
    """

    title: str
    command: str
    workload: str
    objective: Objective
    spread: LoadSpread | None = None
    front: tuple[ParetoPoint, ...] = ()


def solution_page(solution: Solution, context: ReportContext) -> str:
    """The whole page; the same arguments give the same text."""
    sections = [
        f"<h1>{escape(context.title)}</h1>",
        f'<p class="by">{escape(context.workload)}<br><code>{escape(context.command)}</code></p>',
        _summary(solution),
        table_html(alternatives_table(solution.alternatives), marks_first=True),
        _plots(solution, context),
        table_html(choices_table(solution)),
        table_html(pools_table(solution.plan)),
        table_html(memory_table(solution.memories)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(context.title)}</title><style>{_CSS}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def table_html(table: Table, *, marks_first: bool = False) -> str:
    """A section with the table; `marks_first` stresses its first row."""
    head = "".join(_cell("th", name, index, table) for index, name in enumerate(table.header))
    body = "\n".join(
        f"<tr{' class=first' if marks_first and number == 0 else ''}>{_cells(row, table)}</tr>"
        for number, row in enumerate(table.rows)
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section><h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr>'
        f"</thead>\n<tbody>{body}</tbody></table></div>{note}</section>"
    )


def _cells(row: Sequence[str], table: Table) -> str:
    return "".join(_cell("td", text, index, table) for index, text in enumerate(row))


def _cell(tag: str, text: str, index: int, table: Table) -> str:
    kind = ' class="figure"' if index >= table.num_names else ""
    scope = ' scope="col"' if tag == "th" else ""
    return f"<{tag}{scope}{kind}>{escape(text)}</{tag}>"


def _summary(solution: Solution) -> str:
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in summary(solution))
    return f"<dl>{''.join(pairs)}</dl>"


def _plots(solution: Solution, context: ReportContext) -> str:
    pareto = pareto_figure(solution.alternatives, context.objective, context.front)
    plots = [_figure(svg_text(pareto), "Throughput of a device against the speed of one user")]
    if context.spread:
        text = "Expert load by MoE layer and rank, under an equal split and under this plan"
        plots.append(_figure(svg_text(load_figure(context.spread)), text))
    return "\n".join(plots)


def _figure(svg: str, label: str) -> str:
    named = svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    return f"<figure>{named}</figure>"
