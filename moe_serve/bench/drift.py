"""Throughput while routing drifts, with rebalancing and without, on emulated ranks.

Real routing does not drift on demand. So prompts and answers are made of few words at a time, those
that the model's own router sends mostly to the experts that one rank has at first; each phase takes
other words, and another rank's. The experts' time is declared, so that the fullest rank holds all
others up; what it takes to move them is real.

Shapes: V words probed, L MoE layers, E experts, N ranks.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from moe_serve.bench.drift_client import Clients, drive, read_plan, watching
from moe_serve.bench.drift_figures import (
    REBALANCING,
    STAYS,
    DriftPhase,
    drift_rows,
    moving_times,
    split_gaps,
)
from moe_serve.bench.server import read_counters, serving
from moe_serve.bench.table import Rows
from moe_serve.bench.unlike import declare_device
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config
from moe_serve.demo_tokenizer import find_word_ids, make_tokenizer
from moe_serve.errors import ConfigError

_PROBE_SECONDS = 300.0
_WARM_UP_SECONDS = 1.0
# Prompts so short that steps with one are like all others: what makes a gap longer is moving.
_CLIENTS = Clients(number=12, prompt_tokens=1, new_tokens=48)
_COUNTERS = {name: name for name in ("prompt_tokens", "generated_tokens", "segments", "overruns")}
# Experts that take some steps to move, of which some tokens choose mostly one rank's.
_MODEL = {
    "hidden_size": 256,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 8,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 0,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
# Experts take most of a step; what is not experts takes longer than the processor needs for it.
_DEVICE = {"speed": 16.0, "flops": 1e11, "bandwidth": 6e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftJob:
    """
    Attributes:
        model: a checkpoint directory.
        hardware: device file of all ranks.
        phase_seconds: until prompts are made of other tokens.
        rebalance_every: seconds; the other run has none.
        num_probed: words of which the way is found out; each phase uses `vocabulary` of them.
    """

    model: Path
    hardware: Path
    num_ranks: int = 2
    num_phases: int = 4
    phase_seconds: float = 16.0
    rebalance_every: float = 4.0
    time_scale: float = 8.0
    clients: Clients = _CLIENTS
    num_probed: int = 186
    vocabulary: int = 3


def emulated_drift(folder: Path, time_scale: float, **settings: Any) -> DriftJob:
    """A model and the device of its ranks, made in a folder."""
    model = folder / "model"
    write_checkpoint(model, demo_config() | _MODEL)
    hardware = declare_device(folder / "rank.yaml", **_DEVICE)
    return DriftJob(model=model, hardware=hardware, time_scale=time_scale, **settings)


def drift(job: DriftJob, folder: Path) -> Rows:
    """A row for each run and phase, and for what they should be.

    Raises:
        ConfigError: a server or the probe did not come up, or a request failed.
    """
    vocabularies = _vocabularies(job, folder)
    found = []
    for run, every in ((STAYS, 0.0), (REBALANCING, job.rebalance_every)):
        print(f"running: {run} ...", file=sys.stderr, flush=True)
        with serving(_write_config(job, folder, job.num_ranks, every), job.num_ranks) as url:
            drive(url, job.clients, vocabularies[0], _WARM_UP_SECONDS)
            for number, tokens in enumerate(vocabularies):
                found.append(_phase(job, url, run, number, tokens))
    title = (
        f"routing that drifts, {job.num_ranks} emulated ranks; tokens of prompts and answers, "
        f"{job.clients.number} clients, phases of {job.phase_seconds:g} s"
    )
    return drift_rows(title, found)


def _vocabularies(job: DriftJob, folder: Path) -> list[list[int]]:
    """Words of each phase, by where an equal split would send their rows."""
    probed = find_word_ids(make_tokenizer())[: job.num_probed]
    config = _write_config(job, folder, 1, 0.0)
    command = [sys.executable, "-m", "moe_serve.bench.drift_worker", str(config)]
    done = subprocess.run(
        [*command, *map(str, probed)], stdout=subprocess.PIPE, text=True, timeout=_PROBE_SECONDS
    )
    if done.returncode != 0:
        raise ConfigError(f"the probe of the router ended with exit code {done.returncode}")
    counts_VLE = np.array(json.loads(done.stdout.strip().splitlines()[-1]))
    parts = np.array_split(counts_VLE, job.num_ranks, axis=2)
    shares_VN = np.stack([part.sum(axis=(1, 2)) for part in parts], axis=1)
    shares_VN = shares_VN / shares_VN.sum(axis=1, keepdims=True)
    chosen = heaviest(shares_VN, job.num_phases, job.vocabulary)
    return [[probed[index] for index in each] for each in chosen]


def heaviest(shares_VN: NDArray[np.float64], num_phases: int, num_tokens: int) -> list[list[int]]:
    """Tokens of each phase, by index: those with the largest share of their rows on one rank, the
    ranks in turn. No token is taken twice, for the plan would have followed it already."""
    left = np.array(shares_VN)
    chosen: list[list[int]] = []
    for number in range(num_phases):
        rank = number % left.shape[1]
        best = np.argsort(-left[:, rank], kind="stable")[:num_tokens]
        left[best] = -1.0
        chosen.append(best.tolist())
    return chosen


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


def _phase(job: DriftJob, url: str, run: str, number: int, tokens: Sequence[int]) -> DriftPhase:
    before, begun = read_counters(url, _COUNTERS), time.monotonic()
    with watching(url) as looks:
        answers = drive(url, job.clients, tokens, job.phase_seconds)
    seconds, after = time.monotonic() - begun, read_counters(url, _COUNTERS)
    done = {name: after[name] - before[name] for name in _COUNTERS}
    plan = read_plan(url)
    return DriftPhase(
        run=run,
        number=number,
        gaps=split_gaps(answers, moving_times(looks)),
        tokens_per_second=(done["prompt_tokens"] + done["generated_tokens"]) / seconds,
        epoch=plan["epoch"],
        moved_bytes=plan["rebalancing"]["moved_bytes"],
        load_over_mean=max(plan["ranks"]["load_over_mean"]),
        overruns=done["overruns"] / max(1.0, done["segments"]),
    )
