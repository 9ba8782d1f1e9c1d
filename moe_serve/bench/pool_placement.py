"""Experts over unlike ranks: an equal split beside the plan, predicted beside measured."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from moe_placement.equal_split import equal_split
from moe_placement.load.trace_file import load
from moe_placement.plan_file import save

from moe_serve.bench.pool_configs import write_config
from moe_serve.bench.pool_costs import step_cost
from moe_serve.bench.pool_worker import PoolJob, RankFigures
from moe_serve.bench.unlike import Unlike
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config
from moe_serve.control.deployment import Deployment, plan_deployment
from moe_serve.control.hardware import pool_hardware
from moe_serve.control.model_json import read_model_json
from moe_serve.control.mpirun import mpirun_command, mpirun_environment
from moe_serve.errors import ConfigError

# Replicas of busy experts may take so many more slots.
_REDUNDANCY = 0.25
_RUN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class _Run:
    """One plan, as it ran."""

    deployment: Deployment
    config: Config
    figures: Sequence[RankFigures]

    @property
    def experts_seconds(self) -> float:
        return max(rank.parts.get("experts", 0.0) for rank in self.figures)

    @property
    def step_seconds(self) -> float:
        return max(rank.step_seconds for rank in self.figures)

    @property
    def overruns(self) -> float:
        """Share of the declared segments that took longer than declared."""
        segments = sum(rank.num_segments for rank in self.figures)
        return sum(rank.num_overruns for rank in self.figures) / max(1, segments)


def compare_plans(unlike: Unlike, folder: Path) -> list[dict[str, Any]]:
    """The equal split, on which the load is recorded, and the plan for that load."""
    trace = folder / "load.npz"
    equal_plan = folder / "equal.json"
    first = _config(unlike, folder / "first.yaml", {"plan": "auto"})
    pools = _deployment(first).plan.pools
    spec = _deployment(first).spec
    save(equal_split("bench", spec.num_experts, spec.moe_layers, pools), equal_plan)
    equal = _run(unlike, folder / "equal.yaml", {"plan": str(equal_plan)}, trace)
    placement = {"plan": "auto", "load": str(trace), "redundancy": _REDUNDANCY}
    planned = _run(unlike, folder / "planned.yaml", placement)
    shares_LE = load(trace).rows_LE(1, spec.num_experts_per_token)
    shares_LE = shares_LE / shares_LE.sum(axis=1, keepdims=True)
    (result,) = planned.deployment.chosen.results
    rows = []
    for name, done in (("equal split", equal), ("planned", planned)):
        hardware, plan = pool_hardware(done.config), done.deployment.plan
        cost = step_cost(spec, plan, hardware, shares_LE, unlike.work.num_sequences)
        rows.append(_row(unlike, name, done, cost.experts, cost.total, result.lower_bound))
    for row in rows:
        row["times faster"] = rows[0]["step ms"] / row["step ms"]
    return rows


def _row(
    unlike: Unlike, name: str, done: _Run, experts: float, step: float, bound: float
) -> dict[str, Any]:
    to_ms = 1e3 * unlike.work.time_scale
    return {
        "of": f"{unlike.title}; means of a step, slowest rank",
        "plan": name,
        "slots": " ".join(
            str(len(slots)) for slots in next(iter(done.deployment.plan.layers.values())).slots
        ),
        "bound ms": bound * to_ms,
        "experts predicted ms": experts * to_ms,
        "experts ms": done.experts_seconds * 1e3,
        "experts / bound": done.experts_seconds * 1e3 / (bound * to_ms),
        "step predicted ms": step * to_ms,
        "step ms": done.step_seconds * 1e3,
        "step / predicted": done.step_seconds * 1e3 / (step * to_ms),
        "overruns": done.overruns,
    }


def _config(unlike: Unlike, path: Path, placement: Mapping[str, Any]) -> Config:
    write_config(path, unlike.pools, unlike.work, placement)
    config = load_config(path)
    return resolve(config, read_model_json(config.models[0]), 1)


def _deployment(config: Config) -> Deployment:
    memory = [pool.memory for pool in config.pools for _ in range(pool.ranks)]
    return plan_deployment(config, read_model_json(config.models[0]), memory)


def _run(
    unlike: Unlike, path: Path, placement: Mapping[str, Any], trace: Path | None = None
) -> _Run:
    config = _config(unlike, path, placement)
    job = PoolJob(
        config=str(path),
        num_sequences=unlike.work.num_sequences,
        num_steps=unlike.work.num_steps,
        quotas=unlike.quotas,
        load=str(trace or ""),
    )
    words = [sys.executable, "-m", "moe_serve.bench.pool_worker", msgspec.json.encode(job).decode()]
    print(f"running {path.stem} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        mpirun_command(config.num_ranks, words),
        stdout=subprocess.PIPE,
        text=True,
        env=mpirun_environment(),
        timeout=_RUN_SECONDS,
    )
    if done.returncode != 0:
        raise ConfigError(f"the ranks of {path.stem} ended with exit code {done.returncode}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    figures = msgspec.convert(answer, list[RankFigures])
    return _Run(_deployment(config), config, figures)
