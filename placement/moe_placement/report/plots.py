"""The two plots of a report: what speed costs, and how evenly expert load is spread."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from moe_placement.capacity.answer import ParetoPoint
from moe_placement.report.expert_load import LoadSpread
from moe_placement.serving.workload import Objective, Prediction
from moe_placement.solver.solution import Alternative

# Okabe and Ito's palette, told apart in every common form of colour blindness.
_CHOSEN, _MISSES, _DIM = "#d55e00", "#999999", "#555555"
_OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_LABEL = 60
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "moe_plan",
}
_DPI = 150


def pareto_figure(
    alternatives: Sequence[Alternative], objective: Objective, front: Sequence[ParetoPoint] = ()
) -> Figure:
    """Throughput of a device against the speed that one user sees; up and right is better."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        draw_pareto(figure.subplots(), alternatives, objective, front)
    return figure


def load_figure(spread: LoadSpread) -> Figure:
    """Rows of each rank and layer over the mean rank's, before and after."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        draw_load(figure, spread)
    return figure


def save_png(
    path: Path,
    alternatives: Sequence[Alternative],
    objective: Objective,
    spread: LoadSpread | None,
    front: Sequence[ParetoPoint] = (),
) -> None:
    """Both plots in one file; the first alone where there is no expert load.

    Raises:
        OSError: the file cannot be written.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 8.4 if spread else 4.2), layout="constrained")
        parts = figure.subfigures(2 if spread else 1, squeeze=False)[:, 0]
        draw_pareto(parts[0].subplots(), alternatives, objective, front)
        if spread:
            draw_load(parts[1], spread)
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def svg_text(figure: Figure) -> str:
    """An SVG element to stand in a page; the same figure gives the same text."""
    file = StringIO()
    with rc_context(_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def draw_pareto(
    axes: Axes,
    alternatives: Sequence[Alternative],
    objective: Objective,
    front: Sequence[ParetoPoint],
) -> None:
    """A curve for each plan, from light load to all that it serves, and a point where it is.

    Args:
        front: the best of all workers at each speed; drawn where it is known.
    """
    if front:
        points = [(point.speed, point.throughput_per_device) for point in front]
        axes.plot(
            *zip(*points, strict=True),
            color=_DIM,
            linestyle=":",
            label="Pareto front of all workers, without queues",
        )
    for number, option in enumerate(alternatives):
        colour = _colour(number, option)
        curve = [_speeds(found, option.num_devices) for found in option.curve]
        if curve:
            axes.plot(*zip(*curve, strict=True), color=colour, linewidth=2 if number == 0 else 1)
        axes.scatter(
            *_speeds(option.prediction, option.num_devices),
            color=colour,
            marker="oXs^vP"[number % 6],
            s=60 if number == 0 else 30,
            zorder=3,
            label=shorten(option.name, _LABEL, placeholder=" ..."),
        )
    if objective.tpot:
        _mark_tpot(axes, objective.tpot)
    axes.set_xlabel("tokens a second that one user sees (1 / TPOT)")
    axes.set_ylabel("output tokens a second of each device")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title("What speed costs: each plan from light load to all that it serves", loc="left")
    axes.legend(frameon=False, fontsize=7)


def _colour(number: int, option: Alternative) -> str:
    if number == 0:
        return _CHOSEN
    return _OTHERS[number % len(_OTHERS)] if option.meets_objective else _MISSES


def _speeds(found: Prediction, num_devices: int) -> tuple[float, float]:
    return (1 / found.tpot if found.tpot else 0.0, found.throughput / num_devices)


def _mark_tpot(axes: Axes, tpot: float) -> None:
    axes.axvline(1 / tpot, color=_DIM, linestyle="--", linewidth=1)
    axes.annotate(
        "TPOT asked for",
        (1 / tpot, 0),
        xycoords=("data", "axes fraction"),
        xytext=(3, 4),
        textcoords="offset points",
        color=_DIM,
    )


def draw_load(figure: Figure | SubFigure, spread: LoadSpread) -> None:
    """Two heat maps on one scale of colours."""
    both = (("equal split", spread.equal_LN), ("this plan", spread.planned_LN))
    high = max(float(rows_LN.max()) for _, rows_LN in both)
    for axes, (name, rows_LN) in zip(figure.subplots(1, 2, sharey=True), both, strict=True):
        worst = float(np.mean(rows_LN.max(axis=1)))
        image = axes.imshow(
            rows_LN, aspect="auto", cmap="cividis", vmin=0, vmax=high, interpolation="nearest"
        )
        axes.grid(visible=False)
        axes.set_title(f"{name}: fullest {worst:.2f} x mean", loc="left")
        axes.set_xlabel("rank")
    figure.axes[0].set_ylabel("MoE layer")
    figure.colorbar(image, ax=figure.axes, label="rows over the mean rank's")
