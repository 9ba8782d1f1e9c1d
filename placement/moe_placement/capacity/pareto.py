"""Throughput per device against speed per user: what each workload speed costs in devices."""

from collections.abc import Iterable
from dataclasses import replace

from moe_placement.capacity.answer import ParetoPoint
from moe_placement.serving.workload import Objective
from moe_placement.solver.pools.question import Market
from moe_placement.solver.workers.service import Demand, rate_bound
from moe_placement.solver.workers.worker import Phase, WorkerKind

# Seconds per output token that plans are looked for at.
_TPOTS = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2)


def pareto_points(market: Market) -> tuple[ParetoPoint, ...]:
    """The best workers at each of a range of speeds, by their steps alone, without queues.

    Prefill and decode workers of their own are taken in the ratio in which both are full.
    """
    points: list[ParetoPoint] = []
    demand = market.rates.demand
    prefill = _best(market, "prefill", demand)
    for tpot in _TPOTS:
        asked = replace(demand, objective=Objective(tpot=tpot))
        both, decode = (_best(market, phase, asked) for phase in ("both", "decode"))
        for name, rate in (_single(market, both), _pair(market, prefill, decode)):
            if rate > 0:
                throughput = rate * demand.workload.output_tokens
                points.append(
                    ParetoPoint(
                        throughput_per_device=throughput, speed=1 / tpot, configuration=name
                    )
                )
    return undominated(points)


def undominated(points: Iterable[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Those that no other equals in speed and beats in throughput, by falling speed."""
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda point: (-point.speed, -point.throughput_per_device)):
        if not kept or point.throughput_per_device > kept[-1].throughput_per_device:
            kept.append(point)
    return tuple(kept)


def _best(market: Market, phase: Phase, demand: Demand) -> tuple[float, WorkerKind] | None:
    """The kind that serves most requests per second and device in a phase."""
    kinds = dict.fromkeys(offer.kind for offer in market.offers if offer.phase == phase)
    rated = [
        (rate_bound(market.rates.candidates[kind], phase, demand) / kind.num_devices, kind)
        for kind in kinds
    ]
    return max(rated, key=lambda pair: pair[0], default=None)


def _single(market: Market, both: tuple[float, WorkerKind] | None) -> tuple[str, float]:
    if both is None:
        return "", 0.0
    return f"together {both[1].name(market.question.context.cluster)}", both[0]


def _pair(
    market: Market,
    prefill: tuple[float, WorkerKind] | None,
    decode: tuple[float, WorkerKind] | None,
) -> tuple[str, float]:
    """Devices of both phases share each request: their times per request add up."""
    if prefill is None or decode is None or not (prefill[0] and decode[0]):
        return "", 0.0
    cluster = market.question.context.cluster
    rate = 1 / (1 / prefill[0] + 1 / decode[0])
    share = rate / prefill[0]
    name = f"prefill {prefill[1].name(cluster)} ({share:.0%} of devices), decode "
    return name + decode[1].name(cluster), rate
