"""What a planned deployment is predicted to give its clients."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from moe_placement.serving.mixture import mix_steps
from moe_placement.serving.workload import Objective, Prediction, Workload
from moe_placement.solver.pools.deployment_service import meets_demand, predict
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.pools.reasons import binding_constraint
from moe_placement.solver.workers.service import Demand
from moe_placement.solver.workers.worker import Deployment as Workers
from moe_placement.solver.workers.worker import Phase, WorkerKind

from moe_serve.config.tree import Config
from moe_serve.config.workload import WorkloadConfig
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.kv_link import KvLink, kv_link
from moe_serve.control.planning.planned_workers import PlannedWorker, cost_context, planned_workers

# Of a decode step: half of the one under way, and the one that computes a prompt's last token.
_FIRST_STEPS = 1.5
_RARE = 0.01
_ALMOST = 0.99
# Between a rate that is served and one that is not: first doubled or halved, then bisected.
_BRACKETS = 14
_BISECTIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePrediction:
    """Seconds, requests and tokens per second, by the clock on the wall.

    Attributes:
        ttft, tpot: medians of the time to the first token and for each later one.
        ttft_tail, tpot_tail: at the objective's percentile.
        gap_p99: 99th percentile of the time between two tokens of an answer.
        request_rate: requests per second that end.
        most_rate: of an open stream within the objective, at most.
        throughput: output tokens per second.
        meets_objective: also, all requests are served.
        kv_link: what keys and values take; None where none move.
    """

    ttft: float
    ttft_tail: float
    tpot: float
    tpot_tail: float
    gap_p99: float
    request_rate: float
    most_rate: float
    throughput: float
    meets_objective: bool
    kv_link: KvLink | None = None


def predict_service(
    config: Config, deployment: Deployment, workload: Workload, objective: Objective | None = None
) -> ServicePrediction:
    """What the clients of a resolved config see, all of whose pools name their hardware.

    Where devices are emulated, declared times last `emulation.time_scale` times longer, and so
    does all that is predicted.

    Args:
        workload: an open stream, or clients in a closed loop.

    Raises:
        ConfigError: hardware that is not known.
        HardwareError: a device that cannot compute with its pool's weight format.
    """
    return PlannedService.of(config, deployment, workload, objective or Objective()).prediction()


def asked(workload: WorkloadConfig) -> tuple[Workload, Objective]:
    """A config's workload in the planner's words."""
    slo = workload.slo
    return (
        Workload(
            prompt_tokens=workload.prompt_tokens,
            output_tokens=workload.output_tokens,
            rate=workload.rate,
        ),
        Objective(ttft=slo.ttft, tpot=slo.tpot, percentile=slo.percentile),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PlannedService:
    """The planner's workers of one deployment, and what comes to them.

    Attributes:
        workers: those that do what their phase says; prompts so short that nobody hands them
            over leave the prefill workers without work.
        link: between the phases; None where no prompt is handed over.
        slowdown: seconds on the wall for each of the devices' own.
        binding: what binds the placement of the experts, where that is known.
    """

    workers: tuple[PlannedWorker, ...]
    rates: Rates
    link: KvLink | None
    slowdown: float
    binding: str

    @staticmethod
    def of(
        config: Config, deployment: Deployment, workload: Workload, objective: Objective
    ) -> "PlannedService":
        slowdown = _slowdown(config)
        own = replace(workload, rate=workload.rate * slowdown)
        levels = replace(objective, ttft=objective.ttft / slowdown, tpot=objective.tpot / slowdown)
        demand = Demand(own, levels, float(config.scheduler.max_tokens_per_step))
        workers, link = planned_workers(config, deployment, own), None
        prefill = [worker for worker in workers if worker.phase == "prefill"]
        others = [worker for worker in workers if worker.phase != "prefill"]
        if prefill and demand.request.prompt <= config.scheduler.max_local_prefill:
            workers = tuple(replace(worker, phase="both") for worker in others)
        elif prefill:
            context = cost_context(config, deployment)
            link = kv_link(context, config.links, prefill, others, demand)
            demand = replace(demand, transfer_seconds=link.left / demand.request.prompt)
        candidates = {worker.candidate.kind: worker.candidate for worker in workers}
        results = deployment.chosen.results
        binding = results[0].binding if results else ""
        return PlannedService(workers, Rates(candidates, demand), link, slowdown, binding)

    @property
    def bound_by(self) -> str:
        """What keeps it from serving more."""
        most = self._most_rate()
        if self.link is not None and most >= _ALMOST * self.link.most_rate:
            return f"the link {self.link.name}, which carries keys and values"
        return binding_constraint(self._whole, self.rates, self.binding)

    def prediction(self) -> ServicePrediction:
        """Under the workload that it was made for."""
        demand, slowdown = self.rates.demand, self.slowdown
        found = self._at(demand.workload)
        meets = meets_demand(found, demand)
        closed = found.request_rate if meets else 0.0
        most = closed if demand.workload.concurrency else self._most_rate()
        return ServicePrediction(
            ttft=found.ttft * slowdown,
            ttft_tail=found.ttft_tail * slowdown,
            tpot=found.tpot * slowdown,
            tpot_tail=found.tpot_tail * slowdown,
            gap_p99=self._gap(found) * slowdown,
            request_rate=found.request_rate / slowdown,
            most_rate=most / slowdown,
            throughput=found.throughput / slowdown,
            meets_objective=meets,
            kv_link=self.link and self.link.slowed(slowdown),
        )

    @property
    def _whole(self) -> Workers:
        counts: dict[tuple[WorkerKind, Phase], int] = {}
        for worker in self.workers:
            key = worker.candidate.kind, worker.phase
            counts[key] = counts.get(key, 0) + 1
        return Workers.of(counts)

    def _at(self, workload: Workload) -> Prediction:
        found = predict(self._whole, workload, self.rates)
        return found if self.link is None else _handed_over(found, self.link, workload)

    def _most_rate(self) -> float:
        """The open stream that is served whole within the objective."""
        demand = self.rates.demand

        def holds(rate: float) -> bool:
            return meets_demand(self._at(demand.at_rate(rate)), demand)

        return _largest(holds, demand.workload.rate or 1.0)

    def _gap(self, found: Prediction) -> float:
        """Decode steps that carry prompts too last longer; they count unless they are rare."""
        request = self.rates.demand.request
        gaps = [found.tpot]
        mixing = [worker.candidate for worker in self.workers if worker.phase == "both"]
        for candidate in mixing:
            decoding = found.request_rate / len(mixing) * request.steps * found.tpot
            within = min(max(decoding, _RARE), candidate.full_batch(request))
            mixture = mix_steps(candidate.timer.seconds, request, candidate.limits, within)
            gaps.append(mixture.mixed if mixture.mixed_share > _RARE else mixture.plain)
        return max(gaps)


def _slowdown(config: Config) -> float:
    is_emulated = any(pool.device == "emulated" for pool in config.pools)
    return config.emulation.time_scale if is_emulated else 1.0


def _handed_over(found: Prediction, link: KvLink, workload: Workload) -> Prediction:
    """A prediction of separate phases with what the link adds, and with first tokens that come
    from a decode step of their own."""
    rate = min(found.request_rate, link.most_rate)
    if workload.concurrency:
        waiting = workload.concurrency * (1 / rate - 1 / found.request_rate)
    else:
        waiting = link.waiting(workload.rate)
    later = waiting + _FIRST_STEPS * found.tpot * workload.tokens_per_step
    return replace(
        found,
        ttft=found.ttft + later,
        ttft_tail=found.ttft_tail + later,
        request_rate=rate,
        throughput=rate * workload.output_tokens,
        utilisation={**found.utilisation, "link": min(1.0, rate / link.most_rate)},
        saturated=found.saturated or rate < min(found.request_rate, workload.rate),
    )


def _largest(holds: Callable[[float], bool], start: float) -> float:
    """The largest rate for which a falling condition holds, to a few per mille; 0 for none."""
    factor = 2.0 if holds(start) else 0.5
    for number in range(_BRACKETS):
        rate = start * factor ** (number + 1)
        if holds(rate) != (factor > 1):
            break
    else:
        return rate if factor > 1 else 0.0
    low, high = sorted((rate, rate / factor))
    for _ in range(_BISECTIONS):
        middle = sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
