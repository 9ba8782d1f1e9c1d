"""Deployments of like workers, for simple questions."""

from moe_placement.cost.step_timer import StepTimer
from moe_placement.simulator.deployment import (
    KvTransfer,
    SimulatedDeployment,
    SimulatedLink,
    SimulatedWorker,
)
from moe_placement.simulator.scheduler import SchedulerLimits


def together(
    timer: StepTimer, limits: SchedulerLimits, *, num_workers: int = 1, num_ranks: int = 1
) -> SimulatedDeployment:
    """Workers that do both phases."""
    worker = SimulatedWorker(pool="both", timer=timer, limits=limits, num_ranks=num_ranks)
    return SimulatedDeployment(workers=(worker,) * num_workers)


def apart(
    prefill: StepTimer,
    decode: StepTimer,
    limits: SchedulerLimits,
    *,
    num_prefill: int = 1,
    num_decode: int = 1,
    link: SimulatedLink,
    kv_bytes_per_token: float,
    num_layers: int = 1,
) -> SimulatedDeployment:
    """Workers for prefill and others for decode, with one link for the KV caches."""
    first = SimulatedWorker(pool="prefill", role="prefill", timer=prefill, limits=limits)
    then = SimulatedWorker(pool="decode", role="decode", timer=decode, limits=limits)
    transfer = KvTransfer(link=link.name, bytes_per_token=kv_bytes_per_token, num_layers=num_layers)
    return SimulatedDeployment(
        workers=(first,) * num_prefill + (then,) * num_decode,
        links=(link,),
        transfer=transfer,
    )
