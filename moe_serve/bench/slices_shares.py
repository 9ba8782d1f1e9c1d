"""Shares that saturated tenants ask for and get, on one rank and on two, and what that costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_serve.bench.slices_figures import ShareError, Timeline
from moe_serve.bench.slices_job import RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import serving
from moe_serve.bench.table import Row, Rows, target

_LAYERS = {"dense": 2, "moe": 1, "dense-large": 2, "dense-other": 2}
# For what turns cost where steps are longer.
_DEEP_LAYERS = {"deep": 5, "moe, deep": 4}
_MEMORY_MB = 128
_MAX_STEP, _DEEP_MAX_STEP = 0.003, 0.01
# In which engines learn what their steps take, and products are compiled for their shapes.
_FIRST_SECONDS = 20.0
_WINDOW, _SHORT_WINDOW = 1.0, 0.2
# Points of percent, by window.
_MOST_ERROR = {_WINDOW: 0.5, _SHORT_WINDOW: 2.0}
_MOST_OVERHEAD = 1.0


@dataclass(frozen=True, slots=True)
class _Case:
    """Saturated tenants.

    Attributes:
        percents: asked, by tenant.
        ranks: that each tenant is on.
    """

    name: str
    percents: Mapping[int, float]
    models: Sequence[BenchModel]
    ranks: int = 1
    mode: str = "share"

    def run(self, seconds: float) -> Run:
        streams = [
            Stream(
                tenant=tenant,
                rank=self.models[tenant].rank,
                prompt_tokens=32,
                output_tokens=128,
                num_sequences=2,
            )
            for tenant in self.percents
        ]
        return Run(
            percents=dict(self.percents),
            hard=tuple(self.percents) if self.mode == "hard" else (),
            seconds=seconds,
            streams=tuple(streams),
        )

    def share_rows(self, logs: Sequence[RankLog]) -> Rows:
        return [
            self._share_row(Timeline.of(log), rank, tenant)
            for rank, log in enumerate(logs)
            for tenant in self.percents
            if self.models[tenant].rank in (-1, rank)
        ]

    def _share_row(self, timeline: Timeline, rank: int, tenant: int) -> Row:
        asked = self.percents[tenant]
        row: Row = {
            "of": "achieved shares of saturated tenants, in percent of device time",
            "ranks": self.ranks,
            "mode": self.mode,
            "shares": self.name,
            "rank": rank,
            "model": self.models[tenant].name,
            "asked": asked,
            "achieved": timeline.percent(tenant),
            "of steps alone": timeline.step_percent(tenant),
        }
        for seconds in (_WINDOW, _SHORT_WINDOW):
            error = ShareError.of(timeline.window_percents(tenant, seconds), asked)
            row |= {f"mean error {seconds:g} s": error.mean}
            row |= {f"error of 99 in 100, {seconds:g} s": error.most}
            row |= {f"largest error {seconds:g} s": error.largest}
            row |= {f"in longest steps, {seconds:g} s": timeline.in_longest_turns(error, seconds)}
        return row

    def cost_rows(self, logs: Sequence[RankLog]) -> Rows:
        return [self._cost_row(rank, log) for rank, log in enumerate(logs)]

    def _cost_row(self, rank: int, log: RankLog) -> Row:
        seconds_S = np.asarray(log.step_ends) - np.asarray(log.step_begins)
        percent = 100 / seconds_S.sum()
        return {
            "of": "what turns cost, in percent of the time in steps",
            "ranks": self.ranks,
            "mode": self.mode,
            "shares": self.name,
            "rank": rank,
            "steps": len(seconds_S),
            "step ms": 1e3 * float(np.median(seconds_S)),
            "longest step ms": 1e3 * float(seconds_S.max()),
            "taking turns": log.turns_seconds * percent,
            "bounding steps": log.bounding_seconds * percent,
            "both": (log.turns_seconds + log.bounding_seconds) * percent,
            "step header": log.header_seconds * percent,
        }


def shares(folder: Path, seconds: float) -> Rows:
    """A row for each case, rank and tenant; then what turns cost; then the targets."""
    paths, deep = write_models(folder, _LAYERS), write_models(folder, _DEEP_LAYERS)
    found = [
        (case, logs)
        for cases in (_one_rank(paths), _two_ranks(paths))
        for case, logs in _measure(cases, folder, _MAX_STEP, seconds)
    ]
    rows = [row for case, logs in found for row in case.share_rows(logs)]
    costs = [row for case, logs in found for row in case.cost_rows(logs)]
    ((case, logs),) = _measure(_deep(deep), folder, _DEEP_MAX_STEP, seconds)
    deep_costs = case.cost_rows(logs)
    targets = [*_share_targets(rows), _cost_target(costs), _cost_target(deep_costs)]
    return [*rows, *costs, *deep_costs, *targets]


def _measure(
    cases: Sequence[_Case], folder: Path, max_step: float, seconds: float
) -> list[tuple[_Case, list[RankLog]]]:
    """All cases have the same models and ranks."""
    models, num_ranks = cases[0].models, cases[0].ranks
    config = config_of(models, num_ranks=num_ranks, max_step=max_step)
    folder /= f"ranks-{num_ranks}-{max_step}"
    with serving(config, folder, num_ranks) as ranks:
        equal = dict.fromkeys(range(len(models)), 100 / len(models))
        first = _Case("equal", equal, models, num_ranks)
        ranks.run(first.run(_FIRST_SECONDS))
        return [(case, ranks.run(case.run(seconds))) for case in cases]


def _one_rank(paths: Mapping[str, Path]) -> list[_Case]:
    models = [_model(name, path, 25) for name, path in paths.items()]
    asked = ((1, 4, 25, 70), (30, 70), (10, 90))
    return [
        _Case("/".join(map(str, each)), dict(enumerate(each)), models, mode=mode)
        for each in asked
        for mode in ("share", "hard")
    ]


def _deep(paths: Mapping[str, Path]) -> list[_Case]:
    models = [_model(name, path, 50) for name, path in paths.items()]
    return [_Case("30/70, deep", {0: 30, 1: 70}, models)]


def _two_ranks(paths: Mapping[str, Path]) -> list[_Case]:
    """Four models on both ranks, and one more on each."""
    spread = [_model(name, path, 10) for name, path in paths.items()]
    alone = [
        _model(f"{name}, rank {rank}", paths[name], 60, rank)
        for rank, name in enumerate(("dense", "dense-large"))
    ]
    models = [*spread, *alone]
    return [
        _Case("1/4/25/70", dict(enumerate((1, 4, 25, 70))), models, ranks=2),
        *(
            _Case("30 both, 70 one", {1: 30, 4: 70, 5: 70}, models, ranks=2, mode=mode)
            for mode in ("share", "hard")
        ),
    ]


def _model(name: str, path: Path, percent: int, rank: int = -1) -> BenchModel:
    return BenchModel(name=name, path=path, percent=percent, memory_mb=_MEMORY_MB, rank=rank)


def _share_targets(rows: Sequence[Row]) -> Rows:
    found = []
    for ranks in (1, 2):
        for seconds, limit in _MOST_ERROR.items():
            errors = [row[f"largest error {seconds:g} s"] for row in rows if row["ranks"] == ranks]
            figure = f"largest error of a share on {ranks} rank{'s' * (ranks > 1)}, points"
            found.append(target(figure, f"{seconds:g} s", max(errors), limit))
    for seconds in _MOST_ERROR:
        errors = [row[f"in longest steps, {seconds:g} s"] for row in rows]
        figure = "largest error of a share, in the longest step of its run"
        found.append(target(figure, f"{seconds:g} s", max(errors), 1.0))
    return found


def _cost_target(costs: Sequence[Row]) -> Row:
    steps = [f"{ms:.1f}" for ms in sorted(row["step ms"] for row in costs)]
    span = " to ".join(dict.fromkeys((steps[0], steps[-1])))
    figure = f"turns and bounds, percent of steps of {span} ms"
    return target(figure, "a run", max(row["both"] for row in costs), _MOST_OVERHEAD)
