"""TTFT and time between tokens under mixed load, prefill and decode apart against together."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_serve.bench.phases_client import Answer, drive
from moe_serve.bench.phases_configs import DEPLOYMENTS, NUM_RANKS, PhasesServer, write_device
from moe_serve.bench.phases_figures import PhasesRun, figure_rows
from moe_serve.bench.phases_load import Arrival, RequestKind, make_arrivals, mean_workload
from moe_serve.bench.phases_predicted import SimulatedPhases, simulate_phases
from moe_serve.bench.server import read_counters, serving
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.control.planning.deployment import plan_deployment
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.control.planning.service import ServicePrediction, predict_service
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config

_COUNTERS = {
    "handovers": "handovers",
    "failed": "handover_failures",
    "kv_bytes": "kv_bytes",
    "segments": "segments",
    "overruns": "overruns",
}
# Beyond the stream, for the last answers.
_LAST_SECONDS = 60.0
_WARM_UP_EACH = 2


# Of the model's device; on the clock on the wall they come as much more slowly as it computes.
_SHORT = RequestKind(name="short", prompt_tokens=32, output_tokens=48, rate=5.0)
_LONG = RequestKind(name="long", prompt_tokens=512, output_tokens=16, rate=1.2)
# Few layers make long segments, which are kept to the more nearly.
_MODEL = {"num_hidden_layers": 2}
_CHUNK = 128
_MAX_LOCAL_PREFILL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesJob:
    """Attributes:
    seconds: in which requests come.
    """

    server: PhasesServer
    kinds: tuple[RequestKind, ...]
    seconds: float
    seed: int = 0


def emulated_phases(
    folder: Path, time_scale: float, seconds: float, kinds: Sequence[RequestKind] = (_SHORT, _LONG)
) -> PhasesJob:
    """The demo model on devices whose speed is declared, made in a folder.

    Args:
        seconds: in which requests come, by the devices' own clock, as are the kinds' rates.
    """
    model, hardware = folder / "model", folder / "device.yaml"
    write_checkpoint(model, demo_config() | _MODEL)
    write_device(hardware)
    server = PhasesServer(
        model=model,
        hardware=hardware,
        time_scale=time_scale,
        chunk=_CHUNK,
        max_local_prefill=_MAX_LOCAL_PREFILL,
    )
    slower = tuple(replace(kind, rate=kind.rate / time_scale) for kind in kinds)
    return PhasesJob(server=server, kinds=slower, seconds=seconds * time_scale)


def compare_phases(job: PhasesJob, folder: Path) -> list[dict[str, Any]]:
    """A row for each figure of each kind of requests, and of all: milliseconds as clients
    measured them, as the simulator has them for the very same requests, and by formula.

    Raises:
        ConfigError: a server does not come up, or a request fails.
    """
    arrivals = make_arrivals(job.kinds, job.seconds, job.seed)
    done = {name: _run(job, folder / f"{name}.yaml", name, arrivals) for name in DEPLOYMENTS}
    return figure_rows(done, [kind.name for kind in job.kinds])


def _run(job: PhasesJob, path: Path, name: str, arrivals: Sequence[Arrival]) -> PhasesRun:
    job.server.write(name, path)
    formula, simulated = _predict(job, path, arrivals)
    print(f"running {name} ...", file=sys.stderr, flush=True)
    answers, counted = _measure(job, path, arrivals)
    return PhasesRun(answers, counted, formula, simulated)


def _predict(
    job: PhasesJob, path: Path, arrivals: Sequence[Arrival]
) -> tuple[ServicePrediction, SimulatedPhases]:
    config = load_config(path)
    model_json = read_model_json(config.models[0])
    config = resolve(config, model_json, 1)
    memories = [pool.memory for pool in config.pools for _ in range(pool.ranks)]
    deployment = plan_deployment(config, model_json, memories)
    workload = mean_workload(job.kinds)
    formula = predict_service(config, deployment, workload)
    return formula, simulate_phases(config, deployment, workload, arrivals)


def _measure(
    job: PhasesJob, path: Path, arrivals: Sequence[Arrival]
) -> tuple[list[Answer], dict[str, float]]:
    with serving(path, NUM_RANKS) as url:
        drive(url, _warm_up(job, arrivals), _LAST_SECONDS)
        before = read_counters(url, _COUNTERS)
        answers = drive(url, arrivals, job.seconds + _LAST_SECONDS)
        after = read_counters(url, _COUNTERS)
    counted = {name: after[name] - before[name] for name in _COUNTERS}
    counted["overruns"] /= max(1.0, counted.pop("segments"))
    return answers, counted


def _warm_up(job: PhasesJob, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """A few of each kind, at once, and backwards, so that no prefix of the others is cached."""
    return [
        Arrival(0.0, kind, arrival.prompt_ids[::-1])
        for kind in job.kinds
        for arrival in [each for each in arrivals if each.kind is kind][:_WARM_UP_EACH]
    ]
