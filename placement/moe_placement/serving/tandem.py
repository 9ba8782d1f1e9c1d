"""The steady state of prefill workers that hand their requests over to decode workers.

Operators alone: floats, or arrays of one number per case.
"""

from dataclasses import dataclass

from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import RequestShape, Seconds, greatest, least
from moe_placement.serving.queue import loop_wait

_ROUNDS = 20
_DAMPING = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillStation:
    """Prompts one after the other on each of a few like workers.

    Attributes:
        service: seconds of one prompt, alone on its worker.
        slot: seconds that each prompt before it adds, with all workers at work.
    """

    service: float
    slot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TandemState:
    """What requests through both stations settle to.

    Attributes:
        decoding: sequences on all decode workers.
        step: seconds of a decode step.
        waiting: seconds before a prompt's own prefill.
        queueing: seconds before its decode worker has room.
        rate: requests per second that end.
    """

    station: PrefillStation
    decoding: float
    step: float
    waiting: float
    queueing: float
    rate: float


def prefill_station(
    seconds: Seconds, request: RequestShape, num_workers: float, groups: float, budget: float
) -> PrefillStation:
    """A prompt is in one attention group: the other groups' devices wait for it unless they have
    prompts of their own, so alone it takes as long as one in every group does."""
    alone = least(request.prompt, budget)
    every = seconds(request.step(alone * groups, 0.0)) * request.prompt / alone
    full = seconds(request.step(budget * groups, 0.0)) * request.prompt / (budget * groups)
    return PrefillStation(service=every, slot=full / num_workers)


def settle_tandem(
    station: PrefillStation,
    decode_seconds: Seconds,
    request: RequestShape,
    clients: float,
    *,
    num_decode: float,
    limits: ServingLimits,
    handover: float,
) -> TandemState:
    """A closed loop of clients: the prefill station is one fast server, decode workers never
    keep a request waiting while they have room.

    Args:
        handover: seconds to move one request's cache, which delays no other.
    """
    most = limits.sequences(request.held) * num_decode
    decoding = least(clients, most)
    for _ in range(_ROUNDS):
        step = decode_seconds(request.step(0.0, decoding / num_decode))
        answer = request.steps * step
        cycle = station.service + handover + answer
        waiting = loop_wait(clients, station.slot, cycle)
        rate = least(clients / (cycle + waiting), most / answer)
        decoding = decoding + _DAMPING * (rate * answer - decoding)
    return TandemState(
        station=station,
        decoding=decoding,
        step=step,
        waiting=waiting,
        queueing=greatest(clients / rate - cycle - waiting, 0.0),
        rate=rate,
    )


def settle_decoding(seconds: Seconds, request: RequestShape, rate: float, most: float) -> float:
    """Sequences that decode on one worker where requests come at a rate (Little's law)."""
    decoding = least(most, rate * request.steps * seconds(request.step(0.0, 1.0)))
    for _ in range(_ROUNDS):
        wanted = rate * request.steps * seconds(request.step(0.0, decoding))
        decoding = decoding + _DAMPING * (least(most, wanted) - decoding)
    return decoding
