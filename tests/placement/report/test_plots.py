"""Plots: pictures of the right kind, deterministic, and what they show."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from moe_placement.plan import Plan
from moe_placement.report.expert_load import load_spread
from moe_placement.report.plots import pareto_figure, save_png, svg_text
from moe_placement.serving.workload import Objective
from moe_placement.solver.solution import Solution

_PNG = b"\x89PNG\r\n\x1a\n"


def test_one_picture_holds_both_plots(solution: Solution, plan: Plan, tmp_path: Path) -> None:
    spread = load_spread(plan, np.full((len(plan.layers), 8), 0.125))
    both, one = tmp_path / "both.png", tmp_path / "one.png"
    save_png(both, solution.alternatives, Objective(), spread)
    save_png(one, solution.alternatives, Objective(), None)
    assert both.read_bytes().startswith(_PNG)
    assert one.read_bytes().startswith(_PNG)
    assert len(both.read_bytes()) > len(one.read_bytes())


def test_points_and_curves_are_speed_and_throughput_of_a_device(solution: Solution) -> None:
    figure = pareto_figure(solution.alternatives, Objective(tpot=0.04))
    axes = figure.axes[0]
    points = [xy for found in axes.collections for xy in np.asarray(found.get_offsets()).tolist()]
    assert points == [pytest.approx([50.0, 2000.0]), pytest.approx([20.0, 1000.0])]
    curve, asked = axes.lines
    assert np.asarray(curve.get_xydata()).tolist() == [[100.0, 500.0], [50.0, 2000.0]]
    assert list(asked.get_xdata()) == [25.0, 25.0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "together 1 x (hopper + ascend)"


def test_an_svg_is_an_element_and_repeats(solution: Solution) -> None:
    before = dict(mpl.rcParams)
    texts = {svg_text(pareto_figure(solution.alternatives, Objective())) for _ in range(2)}
    (text,) = texts
    assert text.startswith("<svg")
    assert "tokens a second that one user sees" in text
    assert dict(mpl.rcParams) == before
