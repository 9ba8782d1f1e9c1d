"""What deployments serve: rates of like workers, worked out once and added up."""

import dataclasses
from collections.abc import Mapping

from moe_placement.solver.workers.candidate import Candidate
from moe_placement.solver.workers.service import Demand, served_rate
from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind


class Rates:
    """Requests per second within the objective, by kind, phase and number of workers.

    Workers of both phases and decode workers serve on their own, so their rates add up; prefill
    workers of a kind share one queue, and the more they are the nearer to full they can run.
    """

    def __init__(self, candidates: Mapping[WorkerKind, Candidate], demand: Demand) -> None:
        self.candidates = dict(candidates)
        self.demand = demand
        self._known: dict[tuple[WorkerKind, Phase, int], float] = {}

    def of(self, kind: WorkerKind, phase: Phase, count: int) -> float:
        """Of `count` like workers together."""
        pooled = count if phase == "prefill" else 1
        key = (kind, phase, pooled)
        if key not in self._known:
            candidate = self.candidates[kind]
            self._known[key] = served_rate(candidate, phase, pooled, self.demand)
        return self._known[key] * count / pooled

    def replace(self, candidate: Candidate) -> None:
        """Time a kind of worker anew."""
        self.candidates[candidate.kind] = candidate
        self._known = {key: rate for key, rate in self._known.items() if key[0] != candidate.kind}

    def at_rate(self, rate: float) -> "Rates":
        """The same workers asked for another rate; what they serve at most stays."""
        workload = self.demand.at_rate(rate)
        other = Rates(self.candidates, dataclasses.replace(self.demand, workload=workload))
        other._known = dict(self._known)
        return other

    def adopt(self, known: WorkerKind, alias: WorkerKind) -> None:
        """Let another kind of worker serve what a known one does: their devices are alike."""
        self.candidates[alias] = dataclasses.replace(self.candidates[known], kind=alias)
        same = {key: rate for key, rate in self._known.items() if key[0] == known}
        self._known |= {(alias, *key[1:]): rate for key, rate in same.items()}

    def capacity(self, deployment: Deployment) -> float:
        """Of a whole deployment; separate phases serve what the slower of them does."""
        served: dict[Phase, float] = {"both": 0.0, "prefill": 0.0, "decode": 0.0}
        for workers in deployment.workers:
            served[workers.phase] += self.of(workers.kind, workers.phase, workers.count)
        return served["both"] + min(served["prefill"], served["decode"])
