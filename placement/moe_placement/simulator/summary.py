"""From what was recorded to the result."""

from collections.abc import Callable, Sequence
from math import inf

from moe_placement.simulator.distribution import distribution_of
from moe_placement.simulator.links import Links
from moe_placement.simulator.recorder import Recorder
from moe_placement.simulator.result import SimulationResult
from moe_placement.simulator.worker import Worker


def summarize(
    recorder: Recorder, workers: Sequence[Worker], links: Links, seconds: float
) -> SimulationResult:
    """Sum up a simulation that took so many simulated seconds."""
    times = recorder.times()
    counts = [rank.counts for worker in workers for rank in worker.ranks]
    num_preemptions, num_prompt, num_cached = (sum(part) for part in zip(*counts, strict=True))
    span = seconds or inf
    return SimulationResult(
        num_requests=recorder.num_requests,
        num_finished=recorder.num_finished,
        num_refused=recorder.num_refused,
        num_unfinished=recorder.num_requests - recorder.num_finished - recorder.num_refused,
        num_resubmitted=recorder.num_resubmitted,
        seconds=seconds,
        ttft=distribution_of(times.ttft_R),
        tpot=distribution_of(times.tpot_R[times.output_tokens_R > 1]),
        inter_token=distribution_of(recorder.gaps, recorder.gap_counts),
        end_to_end=distribution_of(times.end_to_end_R),
        request_rate=recorder.num_finished / span,
        throughput=float(times.output_tokens_R.sum()) / span,
        utilisation=_busy_shares(workers, span, lambda worker: worker.spec.pool),
        utilisation_by_role=_busy_shares(workers, span, lambda worker: worker.spec.role),
        link_bytes=dict(links.num_bytes),
        num_steps=sum(worker.num_steps for worker in workers),
        num_preemptions=num_preemptions,
        num_prompt_tokens=num_prompt,
        num_cached_tokens=num_cached,
        queues=tuple(recorder.queues),
        times=times,
    )


def _busy_shares(
    workers: Sequence[Worker], span: float, group_of: Callable[[Worker], str]
) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for worker in workers:
        groups.setdefault(group_of(worker), []).append(worker.busy_seconds)
    return {name: sum(busy) / len(busy) / span for name, busy in groups.items()}
