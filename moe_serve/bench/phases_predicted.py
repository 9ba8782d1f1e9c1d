"""What the planner says of a deployment under mixed load: its formulas, and its simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from moe_placement.serving.workload import Workload
from moe_placement.simulator.deployment import (
    KvTransfer,
    SimulatedDeployment,
    SimulatedLink,
    SimulatedWorker,
)
from moe_placement.simulator.distribution import Distribution, distribution_of
from moe_placement.simulator.part_timers import PartTimer
from moe_placement.simulator.result import SimulationResult
from moe_placement.simulator.scheduler import SchedulerLimits, SimulatedRequest
from moe_placement.simulator.simulation import simulate

from moe_serve.bench.phases_load import Arrival
from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import ACTIVATION_BYTES, Deployment
from moe_serve.control.planning.planned_workers import PlannedWorker, planned_workers


@dataclass(frozen=True, slots=True)
class KindTimes:
    """Seconds of one kind of requests; the mean of each request's gaps is its TPOT."""

    ttft: Distribution
    tpot: Distribution


@dataclass(frozen=True, slots=True)
class SimulatedPhases:
    """Attributes:
    whole: of all requests.
    kinds: by name.
    gaps: seconds between two tokens of an answer, of all requests.
    """

    whole: KindTimes
    kinds: Mapping[str, KindTimes]
    gaps: Distribution


def simulate_phases(
    config: Config, deployment: Deployment, workload: Workload, arrivals: Sequence[Arrival]
) -> SimulatedPhases:
    """The very requests that a resolved config's ranks are to serve, simulated.

    Args:
        workload: all requests in the mean.
    """
    slowdown = config.emulation.time_scale
    requests = [
        SimulatedRequest(
            request_id=number,
            arrival=arrival.at / slowdown,
            prompt_tokens=arrival.kind.prompt_tokens,
            output_tokens=arrival.kind.output_tokens,
        )
        for number, arrival in enumerate(arrivals)
    ]
    simulated = _simulated(config, deployment, planned_workers(config, deployment, workload))
    result = simulate(simulated, requests, seed=0)
    names = dict.fromkeys(arrival.kind.name for arrival in arrivals)
    return SimulatedPhases(
        whole=KindTimes(scaled(result.ttft, slowdown), scaled(result.tpot, slowdown)),
        kinds={name: _times(result, arrivals, name, slowdown) for name in names},
        gaps=scaled(result.inter_token, slowdown),
    )


def scaled(times: Distribution, factor: float) -> Distribution:
    count, *seconds = astuple(times)
    return Distribution(count, *(each * factor for each in seconds))


def _times(
    result: SimulationResult, arrivals: Sequence[Arrival], name: str, slowdown: float
) -> KindTimes:
    times = result.times
    is_kind_R = np.array([arrivals[number].kind.name == name for number in times.request_id_R])
    return KindTimes(
        ttft=distribution_of(times.ttft_R[is_kind_R] * slowdown),
        tpot=distribution_of(times.tpot_R[is_kind_R] * slowdown),
    )


def _simulated(
    config: Config, deployment: Deployment, workers: Sequence[PlannedWorker]
) -> SimulatedDeployment:
    spec = deployment.spec
    apart = [worker for worker in workers if worker.phase == "prefill"]
    limits = SchedulerLimits(
        num_pages=config.cache.num_pages,
        page_size=config.cache.page_size,
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
        prefix_caching=config.cache.prefix,
    )
    link = SimulatedLink(
        name="keys and values",
        bandwidth=min((link.bandwidth for link in config.links), default=np.inf),
        latency=max((link.latency for link in config.links), default=0.0),
    )
    transfer = KvTransfer(
        link=link.name,
        bytes_per_token=spec.kv_elements_per_token * ACTIVATION_BYTES[config.models[0].dtype],
        num_layers=spec.num_layers,
        delays_first_token=True,
        max_local_prefill=config.scheduler.max_local_prefill,
    )
    return SimulatedDeployment(
        workers=tuple(_worker(worker, limits) for worker in workers),
        links=(link,),
        transfer=transfer if apart else None,
    )


def _worker(worker: PlannedWorker, limits: SchedulerLimits) -> SimulatedWorker:
    candidate = worker.candidate
    return SimulatedWorker(
        pool=" + ".join(pool.name for pool in worker.pools),
        timer=candidate.timer,
        limits=limits,
        role=worker.phase,
        num_ranks=candidate.kind.num_attention_groups,
        rank_timer=PartTimer(candidate.timer),
    )
