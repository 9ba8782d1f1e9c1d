"""What solve, capacity and simulate are asked, read from their options."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_placement.cli.inputs import (
    read_cluster,
    read_coefficients,
    read_constraints,
    read_load,
    read_model,
    read_objective,
)
from moe_placement.cli.workloads import read_workload
from moe_placement.cost.coefficients import Coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.load.trace import ExpertLoad
from moe_placement.model.spec import ModelSpec
from moe_placement.report.figures import rate, seconds
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import Constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to the planner.

    Attributes:
        model: as the user named it.
    """

    model: str
    spec: ModelSpec
    cluster: ClusterSpec
    workload: Workload
    objective: Objective
    load: ExpertLoad | None
    constraints: Constraints
    coefficients: Coefficients
    seed: int

    @property
    def question(self) -> dict[str, Any]:
        """What the solver takes by name beside model, cluster and workload."""
        return {
            "load": None if self.load is None else self.load.shares,
            "objective": self.objective,
            "constraints": self.constraints,
            "coefficients": self.coefficients,
            "seed": self.seed,
            "model": self.model_name,
        }

    @property
    def model_name(self) -> str:
        """The last part of what the user wrote: a folder's or a repository's name."""
        path = Path(self.model)
        return path.parent.name if path.name == "config.json" else path.name

    @property
    def title(self) -> str:
        groups = (f"{group.num_devices} x {group.name}" for group in self.cluster.groups)
        return f"{self.model_name} on {' + '.join(groups)}"

    @property
    def sentence(self) -> str:
        """The workload and the service levels."""
        return f"{_stream(self.workload)}; {_levels(self.objective)}."


def read_asked(options: argparse.Namespace) -> Asked:
    """All inputs; what is wrong with one is told before anything is searched."""
    cluster = read_cluster(options)
    spec = read_model(options)
    return Asked(
        model=options.model,
        spec=spec,
        cluster=cluster,
        workload=read_workload(options),
        objective=read_objective(options),
        load=read_load(options, spec),
        constraints=read_constraints(options, cluster),
        coefficients=read_coefficients(options),
        seed=options.seed,
    )


def _stream(workload: Workload) -> str:
    come = f"{workload.concurrency} clients in a loop"
    if not workload.concurrency:
        come = f"{rate(workload.rate)} requests a second" if workload.rate else "requests"
    lengths = f"{workload.prompt_tokens:,.0f} prompt and {workload.output_tokens:,.0f} output"
    return f"{come} of {lengths} tokens in the mean"


def _levels(objective: Objective) -> str:
    asked = [
        f"{name} at most {seconds(limit)}"
        for name, limit in (("TTFT", objective.ttft), ("TPOT", objective.tpot))
        if limit
    ]
    if not asked:
        return "no service level is asked for"
    return f"{' and '.join(asked)} at the {100 * objective.percentile:g}th percentile"
