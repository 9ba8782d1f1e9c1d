"""A tenant that answers token by token, alone and beside one that saturates the device."""

from pathlib import Path

import numpy as np
from moe_placement.simulator.distribution import distribution_of

from moe_serve.bench.slices_figures import Timeline, gaps
from moe_serve.bench.slices_job import RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import serving
from moe_serve.bench.table import Row, Rows, target

_LAYERS = {"victim": 4, "neighbour": 2}
_VICTIM, _NEIGHBOUR = 0, 1
_PERCENT = 25
_MEMORY_MB = 192
# What a bound can do is seen where it is shorter than the victim's own step.
_MAX_STEP = 0.002
_MOST_RATIO = 1.3
_ANSWERING = Stream(tenant=_VICTIM, prompt_tokens=32, output_tokens=1500)
_SATURATING = Stream(tenant=_NEIGHBOUR, prompt_tokens=1024, output_tokens=16, num_sequences=4)
_ALONE = f"alone, hard at {_PERCENT} %"
_SHARE = "beside it, shares"
_IN_TURN = "beside it, in turn: a step each, however long"


def victim(folder: Path, seconds: float) -> Rows:
    """A row for each way to serve the two; then the targets."""
    paths = write_models(folder, _LAYERS)
    models = [
        BenchModel(name=name, path=path, percent=50, memory_mb=_MEMORY_MB)
        for name, path in paths.items()
    ]
    with serving(config_of(models, max_step=_MAX_STEP), folder / "ranks") as ranks:
        found = {name: _row(name, ranks.run(run)[0]) for name, run in _runs(seconds).items()}
    figure = "p99 between tokens, times that alone"
    window = f"{seconds:g} s"
    alone = found[_ALONE]["p99 ms"]
    targets = [
        target(f"{figure}: {name}", window, row["p99 ms"] / alone, _MOST_RATIO)
        for name, row in found.items()
        if name not in (_ALONE, _IN_TURN)
    ]
    for row in found.values():
        row["p99 / alone"] = row["p99 ms"] / alone
    return [*found.values(), *targets]


def _runs(seconds: float) -> dict[str, Run]:
    both: dict[int, float] = {_VICTIM: _PERCENT, _NEIGHBOUR: 100 - _PERCENT}
    streams = (_ANSWERING, _SATURATING)
    return {
        _ALONE: Run(
            percents={_VICTIM: _PERCENT}, hard=(_VICTIM,), seconds=seconds, streams=(_ANSWERING,)
        ),
        _SHARE: Run(percents=both, seconds=seconds, streams=streams),
        f"{_SHARE}, both hard": Run(
            percents=both, hard=(_VICTIM, _NEIGHBOUR), seconds=seconds, streams=streams
        ),
        _IN_TURN: Run(percents=both, seconds=seconds, streams=streams, in_turn=True),
    }


def _row(name: str, log: RankLog) -> Row:
    answers = [each for each in log.answers.values() if each.tenant == _VICTIM]
    found = distribution_of(gaps(answers, log.first, log.last))
    timeline = Timeline.of(log)
    return {
        "of": f"seconds between a victim's tokens, steps bound to {1e3 * _MAX_STEP:g} ms",
        "victim": name,
        "tokens": found.count,
        "p50 ms": 1e3 * found.p50,
        "p99 ms": 1e3 * found.p99,
        "largest ms": 1e3 * found.largest,
        "achieved %": timeline.percent(_VICTIM),
        "victim's step ms": 1e3 * float(np.median(timeline.step_seconds(_VICTIM))),
        "neighbour's longest step ms": 1e3
        * float(timeline.step_seconds(_NEIGHBOUR).max(initial=0.0)),
    }
