"""What the pools benchmark found of plans for the same ranks, as rows: planned beside measured.

What is compared is alike on both sides: experts with experts, whole steps with whole steps. A whole
step's bound is the solver's for the experts and what the planner says of all else, which no
placement changes.

Shapes: N ranks, S passes through the experts of a layer: a step's layers, one step after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.bench.pool_costs import StepCost
from moe_serve.bench.pool_worker import RankFigures
from moe_serve.bench.table import Row, Rows, target

_MOST_OVER_BOUND = 1.10
_MOST_OFF = 0.20
_LEAST_GAIN = 1.4


@dataclass(frozen=True, slots=True)
class PlanRun:
    """One plan, as it ran.

    Attributes:
        slots: on each rank, in the first MoE layer.
        cost: as predicted, on the devices' own clock.
        figures: by rank.
    """

    slots: Sequence[int]
    cost: StepCost
    figures: Sequence[RankFigures]

    @property
    def experts_seconds(self) -> float:
        """Of a step in the mean: each pass through a layer's experts lasts until the last rank is
        done, and the ranks take turns at being the last."""
        seconds_NS = np.array([rank.expert_seconds for rank in self.figures])
        return float(seconds_NS.max(axis=0).sum()) / self.figures[0].num_steps

    @property
    def step_seconds(self) -> float:
        return max(rank.step_seconds for rank in self.figures)

    @property
    def overruns(self) -> float:
        """Share of the declared segments that took longer than declared."""
        segments = sum(rank.num_segments for rank in self.figures)
        return sum(rank.num_overruns for rank in self.figures) / max(1, segments)


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Attributes:
        bound: seconds that no placement's experts can take less than, on the devices' own clock.
        time_scale: seconds on the wall for one of that clock.
        runs: by the plan's name; the first is what the last is compared with.
    """

    title: str
    bound: float
    time_scale: float
    runs: Mapping[str, PlanRun]


def plan_rows(found: Comparison) -> Rows:
    """A row for each plan, for where each plan's step goes, and for what they should be."""
    rows = [_row(found, name, run) for name, run in found.runs.items()]
    for row in rows:
        row["times faster"] = rows[0]["step ms"] / row["step ms"]
    parts = [_parts(name, run) for name, run in found.runs.items()]
    return [*rows, *parts, *_targets(found, rows)]


def _row(found: Comparison, name: str, run: PlanRun) -> Row:
    to_ms, cost = 1e3 * found.time_scale, run.cost
    step_bound, experts, step = found.bound + cost.others, run.experts_seconds, run.step_seconds
    return {
        "of": f"{found.title}; means of a step, slowest rank of each layer",
        "plan": name,
        "slots": " ".join(map(str, run.slots)),
        "experts bound ms": found.bound * to_ms,
        "experts predicted ms": cost.experts * to_ms,
        "experts ms": experts * 1e3,
        "experts / bound": experts * 1e3 / (found.bound * to_ms),
        "step bound ms": step_bound * to_ms,
        "step predicted ms": cost.total * to_ms,
        "step ms": step * 1e3,
        "step / bound": step * 1e3 / (step_bound * to_ms),
        "step / predicted": step * 1e3 / (cost.total * to_ms),
        "overruns": run.overruns,
    }


def _parts(name: str, run: PlanRun) -> Row:
    """Of the first rank, which has tokens; what the planner says of a step is dense and experts,
    and of dispatch what links take and waiting for slower ranks."""
    parts = sorted(run.figures[0].parts.items())
    return {
        "of": "where the first rank's step goes, waiting for others in dispatch",
        "plan": name,
        **{f"{part} ms": seconds * 1e3 for part, seconds in parts},
    }


def _targets(found: Comparison, rows: Sequence[Row]) -> Rows:
    last = rows[-1]
    steps = list(found.runs.values())[-1].figures[0].num_steps
    window = f"{steps} steps"
    off = [
        target(
            f"{row['plan']}: measured step over predicted, how far from 1",
            window,
            abs(row["step / predicted"] - 1.0),
            _MOST_OFF,
        )
        for row in rows
    ]
    return [
        target(
            f"{last['plan']}: whole step over its bound (experts' LP bound, attention, links)",
            window,
            last["step / bound"],
            _MOST_OVER_BOUND,
        ),
        target(
            f"{last['plan']}: slowest rank's experts of each layer over the LP bound",
            window,
            last["experts / bound"],
            _MOST_OVER_BOUND,
        ),
        target(
            f"{rows[0]['plan']}'s step over the {last['plan']} one's",
            window,
            last["times faster"],
            _LEAST_GAIN,
            at_least=True,
        ),
        *off,
    ]
