"""Bursty small models packed on one rank, against each on a device of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moe_placement.packing.interference import device_use, tenant_speeds
from moe_placement.packing.slices import PackDevice, PackItem

from moe_serve.bench.slices_figures import (
    Objective,
    Timeline,
    gaps,
    token_seconds,
    tokens_in_time,
)
from moe_serve.bench.slices_job import Arrival, RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import SlicesRanks, serving
from moe_serve.bench.slices_trace import Bursts
from moe_serve.bench.table import Row, Rows, target

_LAYERS = {"dense": 2, "moe": 2, "dense-large": 3}
_MEMORY_MB = 192
_DUTY = 0.3
_BURST_SECONDS = 1.0
_SEED = 5
_NUM_SEQUENCES = 8
_PROMPT_TOKENS, _MAX_OUTPUT_TOKENS = 32, 1900
# No step of so many sequences is cut: it would compute fewer of them than it does alone.
_MAX_STEP = 0.02
_FIRST_TOKEN_SECONDS = 0.5
# Of a model alone, with as many sequences.
_TIMES_A_TOKEN = 4.0
_LEAST_GAIN = 2.5
_CALIBRATION_SECONDS = 1.5
# Of those that other tables take for a run: bursts are few in them.
_LONGER = 2.0
_TIMES = "times one device each"
_FIGURES = ("busy fraction", f"busy fraction, {_TIMES}", "a token slower than alone, times")

# By tenant.
Traces = Mapping[int, Sequence[Arrival]]
Objectives = Mapping[int, Objective]


@dataclass(frozen=True, slots=True)
class _Device:
    """What some tenants made of one device.

    Attributes:
        seconds: of the trace, or until the last answer if that came later.
        busy: share of them.
        num_asked: tokens of all requests.
        tokens: of answers within their objectives.
        token_seconds: in the mean over answers, by tenant.
    """

    seconds: float
    busy: float
    num_asked: int
    tokens: int
    token_seconds: Mapping[int, float]

    @staticmethod
    def of(log: RankLog, arrivals: Sequence[Arrival], objectives: Objectives) -> "_Device":
        answers = list(log.answers.values())
        tenants = sorted({each.tenant for each in answers})
        by_tenant = {t: [each for each in answers if each.tenant == t] for t in tenants}
        end = max(log.last, *(each.times[-1] for each in answers if each.times))
        return _Device(
            seconds=end - log.first,
            busy=Timeline.of(log).until(end).busy(),
            num_asked=sum(each.output_tokens for each in arrivals),
            tokens=sum(tokens_in_time(found, objectives[t]) for t, found in by_tenant.items()),
            token_seconds={
                tenant: float(np.mean([token_seconds(each) for each in found if each.is_done]))
                for tenant, found in by_tenant.items()
            },
        )

    def row(self, name: str) -> Row:
        return {
            "of": f"{_NUM_SEQUENCES} requests at once, about {_BURST_SECONDS:g} s of work, at a "
            f"duty cycle of {_DUTY:g}; in time: first token in {_FIRST_TOKEN_SECONDS:g} s, others "
            f"in {_TIMES_A_TOKEN:g} times those alone",
            "device": name,
            "seconds": self.seconds,
            "busy": self.busy,
            "tokens asked": self.num_asked,
            "tokens in time": self.tokens,
            "tokens in time / device s": self.tokens / self.seconds,
            "ms a token": 1e3 * float(np.mean(list(self.token_seconds.values()))),
        }


def packing(folder: Path, seconds: float) -> Rows:
    """A row for each model alone and for all packed; what was predicted; then the targets."""
    paths = write_models(folder, _LAYERS)
    models = [
        BenchModel(name=name, path=path, percent=100 // len(paths), memory_mb=_MEMORY_MB)
        for name, path in paths.items()
    ]
    with serving(config_of(models, max_step=_MAX_STEP), folder / "ranks") as ranks:
        alone, packed = _measure(ranks, len(models), seconds * _LONGER)
    rows = [device.row(model.name) for model, device in zip(models, alone, strict=True)]
    return [*rows, packed.row(f"all {len(models)} packed"), *_outcome(alone, packed)]


def _measure(ranks: SlicesRanks, num_tenants: int, seconds: float) -> tuple[list[_Device], _Device]:
    """Each tenant alone, and all packed, on the same trace."""
    token = {tenant: _token_seconds(ranks, tenant) for tenant in range(num_tenants)}
    traces = {t: _bursts(each).arrivals(t, seconds, _SEED) for t, each in token.items()}
    objectives = {
        tenant: Objective(first_token=_FIRST_TOKEN_SECONDS, token=_TIMES_A_TOKEN * each)
        for tenant, each in token.items()
    }
    alone = [_serve(ranks, {t: trace}, objectives, seconds) for t, trace in traces.items()]
    return alone, _serve(ranks, traces, objectives, seconds)


def _token_seconds(ranks: SlicesRanks, tenant: int) -> float:
    """Of a model alone, with as many sequences as a burst has."""
    stream = Stream(
        tenant=tenant,
        prompt_tokens=_PROMPT_TOKENS,
        output_tokens=_MAX_OUTPUT_TOKENS,
        num_sequences=_NUM_SEQUENCES,
    )
    run = Run(percents={tenant: 100}, seconds=_CALIBRATION_SECONDS, streams=(stream,))
    (log,) = ranks.run(run)
    return float(np.mean(gaps(log.answers.values(), log.first, log.last)))


def _bursts(token_seconds: float) -> Bursts:
    return Bursts(
        duty=_DUTY,
        burst_seconds=_BURST_SECONDS,
        token_seconds=token_seconds,
        num_sequences=_NUM_SEQUENCES,
        prompt_tokens=_PROMPT_TOKENS,
        max_output_tokens=_MAX_OUTPUT_TOKENS,
    )


def _serve(ranks: SlicesRanks, traces: Traces, objectives: Objectives, seconds: float) -> _Device:
    arrivals = sorted(
        (each for trace in traces.values() for each in trace), key=lambda each: each.at
    )
    percents = dict.fromkeys(traces, 100 / len(traces))
    run = Run(percents=percents, seconds=seconds, arrivals=tuple(arrivals), waits_for="answers")
    (log,) = ranks.run(run)
    return _Device.of(log, arrivals, objectives)


def _outcome(alone: Sequence[_Device], packed: _Device) -> Rows:
    duties = [device.busy for device in alone]
    busy_gain = packed.busy / float(np.mean(duties))
    one_each = sum(each.tokens for each in alone) / sum(each.seconds for each in alone)
    apart = {key: each for device in alone for key, each in device.token_seconds.items()}
    slower = float(np.mean([each / apart[key] for key, each in packed.token_seconds.items()]))
    measured = dict(zip(_FIGURES, (packed.busy, busy_gain, slower), strict=True))
    gains = {
        "tokens in time per device second": packed.tokens / packed.seconds / one_each,
        "busy fraction": busy_gain,
    }
    window = f"{packed.seconds:.3g} s"
    return [
        *(
            {"of": "all packed", "figure": figure, "predicted": each, "measured": measured[figure]}
            for figure, each in _predicted(duties).items()
        ),
        *(
            target(f"{figure}, {_TIMES}", window, gain, _LEAST_GAIN, at_least=True)
            for figure, gain in gains.items()
        ),
    ]


def _predicted(duties: Sequence[float]) -> dict[str, float]:
    """As moe_placement.packing has them of bursty slices: each wants the whole device while it is
    busy, and has an equal share of it."""
    device = PackDevice(name="rank", memory=len(duties))
    wanting = [_item(number, 1.0, duty) for number, duty in enumerate(duties)]
    sharing = [_item(number, 1 / len(duties), duty) for number, duty in enumerate(duties)]
    busy = min(1.0, device_use(device, wanting).busy)
    speeds = [each.expected or 0.0 for each in tenant_speeds(device, sharing)]
    found = (busy, busy / float(np.mean(duties)), float(np.mean(speeds)))
    return dict(zip(_FIGURES, found, strict=True))


def _item(number: int, compute: float, duty: float) -> PackItem:
    return PackItem(name=str(number), compute=compute, memory=1, duty=duty)
