"""A model that comes and goes while two others answer: what these feel of it."""

from pathlib import Path

import numpy as np

from moe_serve.bench.slices_figures import Floats, Timeline
from moe_serve.bench.slices_job import RankLog, Run, Stream, Visitor
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import serving
from moe_serve.bench.table import Row, Rows, target
from moe_serve.errors import ConfigError

_STAYING, _COMING = {"dense": 2, "moe": 2}, {"coming": 8}
_NUMBER = len(_STAYING)
_STAYING_MB, _COMING_MB = 128, 1024
_PERCENT = 33
_WIDE = {"hidden_size": 1024, "intermediate_size": 2048}
_MAX_RANKS = 2
_MIB = 1 << 20
# Of what it took, that the process must have given back.
_LEAST_GIVEN_BACK = 90.0
_TIMES = ("before", "while it is loaded", "while it is there", "as it goes")


def changes(folder: Path, seconds: float) -> Rows:
    """A row for each rank and time; then what the processes held; then the targets.

    Args:
        seconds: before it comes, and while it is there.
    """
    staying = write_models(folder, _STAYING)
    coming = write_models(folder, _COMING, **_WIDE)["coming"]
    models = [
        BenchModel(name=name, path=path, percent=_PERCENT, memory_mb=_STAYING_MB)
        for name, path in staying.items()
    ]
    rows: Rows = []
    memory: Rows = []
    for num_ranks in range(1, _MAX_RANKS + 1):
        config = config_of(models, num_ranks=num_ranks, spare_mb=_COMING_MB)
        with serving(config, folder / f"ranks-{num_ranks}", num_ranks) as ranks:
            for rank, log in enumerate(ranks.run(_run(coming, seconds))):
                if log.visit.error:
                    raise ConfigError(f"the model that should come: {log.visit.error}")
                of = {"ranks": num_ranks, "rank": rank}
                rows += [_row(of, name, *each) for name, *each in _times(log, seconds)]
                memory.append(_memory_row(of, log))
    return [*rows, *memory, *_targets(rows, memory)]


def _run(path: Path, seconds: float) -> Run:
    warm_up = 0.5
    visitor = Visitor(
        number=_NUMBER,
        path=str(path),
        percent=_PERCENT,
        memory_mb=_COMING_MB,
        at=warm_up + seconds,
        stays=seconds,
    )
    return Run(
        percents=dict.fromkeys(range(_NUMBER), _PERCENT),
        seconds=seconds,
        warm_up=warm_up,
        streams=tuple(
            Stream(tenant=tenant, prompt_tokens=32, output_tokens=256, num_sequences=2)
            for tenant in range(_NUMBER)
        ),
        visitor=visitor,
    )


def _times(log: RankLog, seconds: float) -> list[tuple[str, Floats, Floats]]:
    """Seconds of the steps that began in each time, and of the breaks between such steps."""
    timeline = Timeline.of(log)
    begin_S, end_S = timeline.begin_S, timeline.begin_S + timeline.step_S
    asked, came, sent, gone = log.visit.times
    spans = ((asked - seconds, asked), (asked, came), (came, sent), (sent, gone))
    found = []
    for name, (first, last) in zip(_TIMES, spans, strict=True):
        # With the step under way at its begin, and the one behind its end.
        low = max(0, int(np.searchsorted(begin_S, first)) - 1)
        high = min(len(begin_S), int(np.searchsorted(begin_S, last)) + 1)
        steps = timeline.step_S[low:high]
        breaks = begin_S[low + 1 : high] - end_S[low : high - 1]
        found.append((name, steps, breaks))
    return found


def _row(of: Row, name: str, steps: Floats, breaks: Floats) -> Row:
    return {
        "of": "other models' steps while one comes and goes, in ms",
        **of,
        "time": name,
        "steps": len(steps),
        "step": 1e3 * float(np.median(steps)),
        "p99": 1e3 * float(np.percentile(steps, 99)),
        "longest": 1e3 * float(steps.max()),
        "break": 1e3 * float(np.median(breaks)),
        "longest break": 1e3 * float(breaks.max()),
    }


def _memory_row(of: Row, log: RankLog) -> Row:
    before, there, sent, gone = (each / _MIB for each in log.visit.resident)
    return {
        "of": "what the process holds, in MiB",
        **of,
        "before": before,
        "when it has come": there,
        "when it is sent away": sent,
        "when it has gone": gone,
        "given back %": 100 * (sent - gone) / (there - before),
    }


def _targets(rows: Rows, memory: Rows) -> Rows:
    found = []
    for num_ranks in range(1, _MAX_RANKS + 1):
        mine = [row for row in rows if row["ranks"] == num_ranks]
        usual = float(np.median([row["step"] for row in mine if row["time"] == "before"]))
        longest = max(row["longest break"] for row in mine if row["time"] != "before")
        figure = f"longest time without a step, in steps of {usual:.1f} ms, ranks: {num_ranks}"
        found.append(target(figure, "while it comes and goes", longest / usual, 1.0))
    least = min(row["given back %"] for row in memory)
    figure = "of what a model took, given back when it goes, percent"
    found.append(target(figure, "a visit", least, _LEAST_GIVEN_BACK, at_least=True))
    return found
