"""Bursty small models packed on one rank, against each on a device of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moe_placement.packing.interference import device_use, tenant_speeds
from moe_placement.packing.slices import PackDevice, PackItem

from moe_serve.bench.slices_figures import Objective, Timeline, token_seconds, tokens_in_time
from moe_serve.bench.slices_job import Arrival, RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import SlicesRanks, serving
from moe_serve.bench.slices_table import Row, Rows, target
from moe_serve.bench.slices_trace import Bursts

_LAYERS = {"dense": 2, "moe": 2, "dense-large": 3}
_MEMORY_MB = 128
_DUTY = 0.3
_BURST_SECONDS = 1.0
_SEED = 5
_PROMPT_TOKENS, _OUTPUT_TOKENS = 32, 96
_FIRST_TOKEN_SECONDS = 0.5
# Of a model alone.
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
        tokens: of answers within their objectives.
        token_seconds: in the mean over answers, by tenant.
    """

    busy: float
    num_asked: int
    tokens: int
    token_seconds: Mapping[int, float]

    @staticmethod
    def of(log: RankLog, objectives: Objectives) -> "_Device":
        answers = list(log.answers.values())
        by_tenant = {
            tenant: [each for each in answers if each.tenant == tenant]
            for tenant in sorted({each.tenant for each in answers})
        }
        return _Device(
            busy=Timeline.of(log).busy(),
            num_asked=len(answers) * _OUTPUT_TOKENS,
            tokens=sum(
                tokens_in_time(found, objectives[tenant], log.last)
                for tenant, found in by_tenant.items()
            ),
            token_seconds={
                tenant: float(np.mean([token_seconds(each) for each in found if each.is_done]))
                for tenant, found in by_tenant.items()
            },
        )


def packing(folder: Path, seconds: float) -> Rows:
    """A row for each model alone and for all packed; what was predicted; then the targets."""
    seconds *= _LONGER
    paths = write_models(folder, _LAYERS)
    models = [
        BenchModel(name=name, path=path, percent=100 // len(paths), memory_mb=_MEMORY_MB)
        for name, path in paths.items()
    ]
    with serving(config_of(models), folder / "ranks") as ranks:
        bursts = {tenant: _bursts(ranks, tenant) for tenant in range(len(models))}
        traces = {
            tenant: each.arrivals(tenant, seconds, _SEED) for tenant, (each, _) in bursts.items()
        }
        objectives = {tenant: each for tenant, (_, each) in bursts.items()}
        alone = [_measure(ranks, [tenant], traces, objectives, seconds) for tenant in traces]
        packed = _measure(ranks, list(traces), traces, objectives, seconds)
    rows = [_row(model.name, each, seconds) for model, each in zip(models, alone, strict=True)]
    rows.append(_row(f"all {len(models)} packed", packed, seconds))
    return [*rows, *_outcome(alone, packed, seconds)]


def _bursts(ranks: SlicesRanks, tenant: int) -> tuple[Bursts, Objective]:
    """By what requests, one behind the other, take alone: a burst is to keep the device busy."""
    stream = Stream(tenant=tenant, prompt_tokens=_PROMPT_TOKENS, output_tokens=_OUTPUT_TOKENS)
    run = Run(percents={tenant: 100}, seconds=_CALIBRATION_SECONDS, streams=(stream,))
    (log,) = ranks.run(run)
    done = [each for each in log.answers.values() if each.is_done]
    request_seconds = float(np.median([each.times[-1] - each.asked for each in done]))
    token = float(np.median([token_seconds(each) for each in done]))
    bursts = Bursts(
        duty=_DUTY,
        burst_seconds=_BURST_SECONDS,
        request_seconds=request_seconds,
        prompt_tokens=_PROMPT_TOKENS,
        output_tokens=_OUTPUT_TOKENS,
    )
    return bursts, Objective(first_token=_FIRST_TOKEN_SECONDS, token=_TIMES_A_TOKEN * token)


def _measure(
    ranks: SlicesRanks,
    tenants: Sequence[int],
    traces: Traces,
    objectives: Objectives,
    seconds: float,
) -> _Device:
    arrivals = sorted(
        (each for tenant in tenants for each in traces[tenant]), key=lambda each: each.at
    )
    percents = dict.fromkeys(tenants, 100 / len(tenants))
    run = Run(percents=percents, seconds=seconds, arrivals=tuple(arrivals))
    (log,) = ranks.run(run)
    return _Device.of(log, objectives)


def _row(name: str, device: _Device, seconds: float) -> Row:
    return {
        "of": f"bursts of about {_BURST_SECONDS:g} s at a duty cycle of {_DUTY:g}; in time: first "
        f"token in {_FIRST_TOKEN_SECONDS:g} s, others in {_TIMES_A_TOKEN:g} times those alone",
        "device": name,
        "busy": device.busy,
        "tokens asked": device.num_asked,
        "tokens in time": device.tokens,
        "tokens in time / device s": device.tokens / seconds,
        "ms a token": 1e3 * float(np.mean(list(device.token_seconds.values()))),
    }


def _outcome(alone: Sequence[_Device], packed: _Device, seconds: float) -> Rows:
    duties = [device.busy for device in alone]
    busy_gain = packed.busy / float(np.mean(duties))
    gain = len(alone) * packed.tokens / sum(device.tokens for device in alone)
    apart = {key: each for device in alone for key, each in device.token_seconds.items()}
    slower = float(np.mean([each / apart[key] for key, each in packed.token_seconds.items()]))
    measured = dict(zip(_FIGURES, (packed.busy, busy_gain, slower), strict=True))
    window = f"{seconds:g} s"
    return [
        *(
            {"of": "all packed", "figure": figure, "predicted": each, "measured": measured[figure]}
            for figure, each in _predicted(duties).items()
        ),
        target(
            f"tokens in time per device second, {_TIMES}", window, gain, _LEAST_GAIN, at_least=True
        ),
        target(f"busy fraction, {_TIMES}", window, busy_gain, _LEAST_GAIN, at_least=True),
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
