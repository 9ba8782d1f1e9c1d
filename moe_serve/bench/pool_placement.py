"""Experts over unlike ranks: an equal split beside the plan, predicted beside measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_placement.equal_split import equal_split
from moe_placement.load.trace_file import load
from moe_placement.plan_file import save
from moe_placement.solver.problem import Floats

from moe_serve.bench.pool_configs import write_config
from moe_serve.bench.pool_costs import Deployed, step_cost
from moe_serve.bench.pool_ranks import run_ranks
from moe_serve.bench.pool_rows import Comparison, PlanRun, plan_rows
from moe_serve.bench.pool_worker import PoolJob, RankFigures
from moe_serve.bench.table import Rows
from moe_serve.bench.unlike import Unlike
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment, plan_deployment
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.control.planning.model_json import read_model_json

# Replicas of busy experts may take so many more slots.
_REDUNDANCY = 0.25


@dataclass(frozen=True, slots=True)
class _Run:
    """One plan, as it ran."""

    deployment: Deployment
    config: Config
    figures: Sequence[RankFigures]

    def beside_predicted(self, shares_LE: Floats, num_tokens: int) -> PlanRun:
        plan = self.deployment.plan
        deployed = Deployed(self.deployment.spec, pool_hardware(self.config), self.config.links)
        cost = step_cost(deployed, plan, shares_LE, num_tokens)
        first_layer = plan.layers[min(plan.layers)]
        return PlanRun([len(slots) for slots in first_layer.slots], cost, self.figures)


def compare_plans(unlike: Unlike, folder: Path) -> Rows:
    """The equal split, on which the load is recorded, and the plan for that load; and what they
    should be.

    Raises:
        ConfigError: the ranks did not end well.
    """
    trace = folder / "load.npz"
    equal_plan = folder / "equal.json"
    first = _deployment(_config(unlike, folder / "first.yaml", {"plan": "auto"}))
    spec = first.spec
    save(equal_split("bench", spec.num_experts, spec.moe_layers, first.plan.pools), equal_plan)
    equal = _run(unlike, folder / "equal.yaml", {"plan": str(equal_plan)}, trace)
    placement = {"plan": "auto", "load": str(trace), "redundancy": _REDUNDANCY}
    planned = _run(unlike, folder / "planned.yaml", placement)
    shares_LE = load(trace).rows_LE(1, spec.num_experts_per_token)
    shares_LE = shares_LE / shares_LE.sum(axis=1, keepdims=True)
    (result,) = planned.deployment.chosen.results
    runs = {
        name: run.beside_predicted(shares_LE, unlike.work.num_sequences)
        for name, run in (("equal split", equal), ("planned", planned))
    }
    return plan_rows(Comparison(unlike.title, result.lower_bound, unlike.work.time_scale, runs))


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
    return _Run(_deployment(config), config, run_ranks(job, config.num_ranks))
