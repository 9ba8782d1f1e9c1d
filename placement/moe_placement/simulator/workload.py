"""Requests made from figures: the same Workload that the analytic predictions take."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moe_placement.serving.workload import Workload
from moe_placement.simulator.arrivals import ClosedLoop, poisson_arrivals
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.lengths import lognormal_lengths
from moe_placement.simulator.scheduler import SimulatedRequest

_SHARED_BLOCK = 0


def make_requests(
    arrivals: NDArray[np.float64],
    prompt_tokens: NDArray[np.int64],
    output_tokens: NDArray[np.int64],
    shared_tokens: int = 0,
) -> tuple[SimulatedRequest, ...]:
    """One request for each entry of the three arrays.

    Args:
        shared_tokens: that all prompts which are longer begin with.
    """
    return tuple(
        SimulatedRequest(
            request_id=number,
            arrival=arrival,
            prompt_tokens=prompt,
            output_tokens=output,
            blocks=(_SHARED_BLOCK,) if 0 < shared_tokens < prompt else (),
            block_tokens=max(1, shared_tokens),
        )
        for number, (arrival, prompt, output) in enumerate(
            zip(arrivals.tolist(), prompt_tokens.tolist(), output_tokens.tolist(), strict=True)
        )
    )


def requests_of(
    workload: Workload, num_requests: int, seed: int
) -> tuple[SimulatedRequest, ...] | ClosedLoop:
    """Requests as a Workload has them in the mean; lengths are lognormal.

    The cached share of the mean prompt is a prefix that all prompts share, found in whole pages.

    Raises:
        SimulationError: neither a rate nor a concurrency, or both.
    """
    if (workload.rate > 0) == (workload.concurrency > 0):
        raise SimulationError(
            f"the workload has rate {workload.rate:g} and concurrency {workload.concurrency}; "
            "give one of them"
        )
    arrival_seed, prompt_seed, output_seed = np.random.SeedSequence(seed).generate_state(3)
    prompts = lognormal_lengths(
        workload.prompt_tokens, workload.prompt_cv, num_requests, int(prompt_seed)
    )
    outputs = lognormal_lengths(
        workload.output_tokens, workload.output_cv, num_requests, int(output_seed)
    )
    arrivals = np.zeros(num_requests)
    if workload.rate:
        arrivals = poisson_arrivals(workload.rate, num_requests, int(arrival_seed))
    shared = round(workload.cached_share * workload.prompt_tokens)
    requests = make_requests(arrivals, prompts, outputs, shared)
    return ClosedLoop(requests, workload.concurrency) if workload.concurrency else requests


def speed_up(requests: Sequence[SimulatedRequest], factor: float) -> tuple[SimulatedRequest, ...]:
    """The same requests at `factor` times their rate."""
    if not factor > 0:
        raise SimulationError(f"factor is {factor:g}; a rate is multiplied by more than 0")
    return tuple(replace(one, arrival=one.arrival / factor) for one in requests)
