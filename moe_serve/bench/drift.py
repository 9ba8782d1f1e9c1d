"""Throughput while routing drifts, with rebalancing and without, on emulated ranks.

Real routing does not drift on demand. So prompts are made of few tokens at a time, those that the
model's own router sends mostly to the experts that one rank has at first; each phase takes another
rank's. The experts' time is declared, so that the fullest rank holds all others up.

Shapes: V tokens probed, L MoE layers, E experts.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import yaml
from numpy.typing import NDArray

from moe_serve.control.mpirun import mpirun_command, mpirun_environment
from moe_serve.errors import ConfigError

_READY_SECONDS = 120.0
_END_SECONDS = 60.0
_ANSWER_SECONDS = 120.0
_FIRST_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftJob:
    """
    Attributes:
        model: a checkpoint directory.
        hardware: device file of all ranks.
        phase_seconds: until prompts are made of other tokens.
        rebalance_every: seconds; the other run has none.
        num_probed: tokens of which the way is found out; each phase uses `vocabulary` of them.
    """

    model: Path
    hardware: Path
    num_ranks: int = 2
    num_phases: int = 3
    phase_seconds: float = 20.0
    rebalance_every: float = 3.0
    time_scale: float = 1.0
    num_clients: int = 6
    prompt_tokens: int = 48
    new_tokens: int = 8
    num_probed: int = 96
    vocabulary: int = 6


def drift(job: DriftJob, folder: Path) -> list[dict[str, Any]]:
    """A row for each run and phase: tokens (of prompts and answers) per second, the plan's epoch
    at its end, bytes of experts moved so far, and the share of segments that overran.

    Raises:
        ConfigError: a server or the probe did not come up, or end, as it should.
    """
    phases = _phases(job, folder)
    rows = []
    for name, every in (("plan stays", 0.0), ("rebalancing", job.rebalance_every)):
        with _server(job, folder, every) as url:
            for number, tokens in enumerate(phases):
                row = {"run": name, "phase": number, **_drive(url, job, tokens)}
                rows.append(row)
    return rows


def parameters(job: DriftJob) -> dict[str, Any]:
    """For the record of the benchmark."""
    return {**asdict(job), "model": job.model.name, "hardware": job.hardware.name}


def _phases(job: DriftJob, folder: Path) -> list[list[int]]:
    """Tokens of each phase: those with most rows for the experts of one rank of an equal split."""
    probed = list(range(_FIRST_TOKEN, _FIRST_TOKEN + job.num_probed))
    config = _write_config(job, folder, 1, 0.0)
    command = [sys.executable, "-m", "moe_serve.bench.drift_worker", str(config)]
    done = subprocess.run([*command, *map(str, probed)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ConfigError(f"the probe of the router ended with exit code {done.returncode}")
    counts_VLE = np.array(json.loads(done.stdout.strip().splitlines()[-1]))
    return [
        _heaviest(counts_VLE, number % job.num_ranks, job, probed)
        for number in range(job.num_phases)
    ]


def _heaviest(
    counts_VLE: NDArray[np.int64], rank: int, job: DriftJob, probed: Sequence[int]
) -> list[int]:
    parts = np.array_split(counts_VLE, job.num_ranks, axis=2)
    share_V = parts[rank].sum(axis=(1, 2)) / counts_VLE.sum(axis=(1, 2))
    best = np.argsort(-share_V, kind="stable")[: job.vocabulary]
    return [probed[index] for index in best.tolist()]


def _write_config(job: DriftJob, folder: Path, num_ranks: int, every: float) -> Path:
    pool: dict[str, Any] = {"name": "host", "ranks": num_ranks, "threads": 1, "device": "cpu"}
    if num_ranks > 1:
        pool |= {"device": "emulated", "hardware": str(job.hardware.resolve()), "memory": "1GiB"}
    config = {
        "model": {"path": str(job.model), "name": "drift", "dtype": "float32"},
        "pools": [pool],
        "placement": {"rebalance_every": every},
        "emulation": {"time_scale": job.time_scale},
        "scheduler": {"max_tokens_per_step": 512, "max_sequences": 32},
        "cache": {"page_size": 16, "num_pages": 512, "prefix": False},
        "server": {"port": 0},
    }
    path = folder / f"drift-{num_ranks}-{every:g}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def _server(job: DriftJob, folder: Path, every: float) -> Iterator[str]:
    """Where a server answers that is drained at the end."""
    config = _write_config(job, folder, job.num_ranks, every)
    command = [sys.executable, "-m", "moe_serve.cli", "--config", str(config)]
    words = mpirun_command(job.num_ranks, command)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=mpirun_environment(), start_new_session=True
    ) as process:
        # What waits for the line below gets its end.
        watchdog = threading.Timer(_READY_SECONDS, process.kill)
        watchdog.start()
        try:
            url = _wait_until_ready(process)
            watchdog.cancel()
            yield url
        finally:
            watchdog.cancel()
            _end(process)


def _wait_until_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready "):
            return line.removeprefix("ready ").strip()
    raise ConfigError("a server of the drift benchmark ended before it was ready")


def _end(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, which mpirun answers by ending its ranks at once: no request is left."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise ConfigError("a server of the drift benchmark did not end") from None


def _drive(url: str, job: DriftJob, tokens: Sequence[int]) -> dict[str, Any]:
    """Clients in a closed loop, each with prompts of its own making, until the phase is over."""
    before, begun = _totals(url), time.monotonic()
    end = begun + job.phase_seconds
    failures: list[Exception] = []
    clients = [
        threading.Thread(target=_client, args=(url, job, tokens, seed, end, failures))
        for seed in range(job.num_clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if failures:
        raise ConfigError(f"a request of the drift benchmark failed: {failures[0]}")
    after, seconds = _totals(url), time.monotonic() - begun
    plan = json.loads(_get(f"{url}/v1/plan"))
    done = {name: after[name] - before[name] for name in after}
    return {
        "tokens_per_second": (done["prompt_tokens"] + done["generated_tokens"]) / seconds,
        "epoch": plan["epoch"],
        "moved_bytes": plan["rebalancing"]["moved_bytes"],
        "load_over_mean": max(plan["ranks"]["load_over_mean"]),
        "overruns": done["overruns"] / max(1.0, done["segments"]),
    }


def _client(
    url: str,
    job: DriftJob,
    tokens: Sequence[int],
    seed: int,
    end: float,
    failures: list[Exception],
) -> None:
    chance = random.Random(seed)
    while time.monotonic() < end:
        body = {
            "prompt": chance.choices(tokens, k=job.prompt_tokens),
            "max_tokens": job.new_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        request = Request(f"{url}/v1/completions", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        try:
            with urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                answer.read()
        except OSError as error:
            failures.append(error)
            return


def _totals(url: str) -> Mapping[str, float]:
    """Counters of all ranks together."""
    names = ("prompt_tokens", "generated_tokens", "segments", "overruns")
    totals = dict.fromkeys(names, 0.0)
    for line in _get(f"{url}/metrics").splitlines():
        for name in names:
            if line.startswith(f"moe_serve_{name}_total{{"):
                totals[name] += float(line.rsplit(" ", 1)[1])
    return totals


def _get(url: str) -> str:
    with urlopen(url, timeout=_ANSWER_SECONDS) as answer:
        text: str = answer.read().decode()
        return text
