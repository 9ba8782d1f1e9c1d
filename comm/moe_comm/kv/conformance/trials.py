"""Round trips: KV goes to the endpoint under test and comes back, under many agreements."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from moe_comm.kv.conformance.tester import (
    ConformanceError,
    Rank,
    Task,
    any_numbers,
    exact_numbers,
)
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.hello import GroupedLayer, Hello, Layer, RotaryOrder
from moe_comm.kv.number_types import CACHE_TYPES, WIRE_TYPES
from moe_comm.kv.routes import even_heads, senders_for

_TRIAL_SECONDS = 10.0
_TURN_SECONDS = 0.001
# Numbers are rounded on each way, in 8-bit significands at the coarsest; int8 steps are 1 / 127
# of the row's largest magnitude.
_TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-2, "float16": 1e-2, "int8": 2.1 / 127}


@dataclass(frozen=True, slots=True)
class Target:
    """One rank of the engine under test."""

    address: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class Trial:
    """One round trip.

    Attributes:
        num_ranks: of the suite, over which it splits the heads.
        first_token: from which the suite wants the KV back.
        is_exact: with numbers that every type carries unchanged.
        withdraws: half of it is sent and withdrawn first.
    """

    name: str
    wire_type: str
    cache_type: str
    rotary_order: RotaryOrder
    num_ranks: int = 1
    page_size: int = 5
    num_tokens: int = 37
    chunk_tokens: int = 16
    first_token: int = 0
    is_exact: bool = True
    withdraws: bool = False


def trials(targets: Sequence[Target]) -> Iterator[Trial]:
    """All that make sense for such a target."""
    hello = targets[0].hello
    types = [each for each in WIRE_TYPES if each in hello.sends and each in hello.receives]
    for wire_type in types:
        cache_type = wire_type if wire_type in CACHE_TYPES else "float32"
        same = Trial(f"{wire_type}", wire_type, cache_type, hello.rotary_order)
        yield same
        yield _but(same, "any numbers", is_exact=False, cache_type="float32")
    for order in ("halves", "interleaved"):
        if order != hello.rotary_order:
            yield _but(same, f"{order} rotary order", rotary_order=order)
    yield _but(same, "token by token", chunk_tokens=1, num_tokens=7)
    yield _but(same, "one block", chunk_tokens=64, page_size=64)
    yield _but(same, "prefix of 9 tokens kept", first_token=9)
    yield _but(same, "all tokens kept", first_token=37)
    yield _but(same, "withdrawn and sent again", withdraws=True)
    for num_ranks in (2, 4):
        if _splits(hello, num_ranks):
            yield _but(same, f"{num_ranks} ranks", num_ranks=num_ranks)


def _but(trial: Trial, name: str, **changes: object) -> Trial:
    fields = {key: getattr(trial, key) for key in Trial.__dataclass_fields__} | changes
    return Trial(**(fields | {"name": f"{trial.name}, {name}"}))


def _splits(hello: Hello, num_ranks: int) -> bool:
    grouped = [layer for layer in hello.layers if isinstance(layer, GroupedLayer)]
    return all(layer.num_kv_heads % num_ranks == 0 for layer in grouped)


def run_trial(targets: Sequence[Target], trial: Trial, secret: bytes) -> None:
    """
    Raises:
        ConformanceError: the target did otherwise than it should.
    """
    hellos = [own_hello(targets[0].hello, trial, rank) for rank in range(trial.num_ranks)]
    routes: dict[int, list[Target]] = {}
    for target in targets:
        for sender in senders_for(target.hello, hellos):
            routes.setdefault(sender, []).append(target)
    endpoints = {sender: KvEndpoint(hellos[sender], secret) for sender in routes}
    # What is told late of another trial is of another request.
    request_id = f"{trial.name} {uuid.uuid4()}"
    try:
        ranks = [
            Rank(
                endpoints[sender],
                hellos[sender],
                _names(met),
                _task(request_id, hellos[sender], trial),
            )
            for sender, met in routes.items()
        ]
        for sender, met in routes.items():
            for target in met:
                endpoints[sender].connect(target.address)
        _run(ranks)
    finally:
        for endpoint in endpoints.values():
            endpoint.close()


def _run(ranks: Sequence[Rank]) -> None:
    deadline = time.monotonic() + _TRIAL_SECONDS
    while not all(rank.is_done for rank in ranks):
        for rank in ranks:
            rank.turn()
        if time.monotonic() > deadline:
            raise ConformanceError(f"nothing came back within {_TRIAL_SECONDS:g} s")
        time.sleep(_TURN_SECONDS)


def own_hello(target: Hello, trial: Trial, rank: int) -> Hello:
    return msgspec.structs.replace(
        target,
        name=f"conformance:{rank}",
        layers=tuple(_share(layer, rank, trial.num_ranks) for layer in target.layers),
        rank=rank,
        num_ranks=trial.num_ranks,
        cache_type=trial.cache_type,
        sends=(trial.wire_type,),
        receives=(trial.wire_type,),
        page_size=trial.page_size,
        rotary_order=trial.rotary_order,
    )


def _share(layer: Layer, rank: int, num_ranks: int) -> Layer:
    if not isinstance(layer, GroupedLayer):
        return layer
    first, end = even_heads(layer.num_kv_heads, rank, num_ranks)
    return msgspec.structs.replace(layer, first_head=first, end_head=end)


def _names(targets: Sequence[Target]) -> list[str]:
    return [target.hello.name for target in targets]


def _task(request_id: str, hello: Hello, trial: Trial) -> Task:
    make = exact_numbers if trial.is_exact else any_numbers
    layers = [
        make(layer, layer.end_head - layer.first_head, trial.num_tokens, 100 * hello.rank + index)
        for index, layer in enumerate(hello.layers)
    ]
    tolerance = 0.0 if trial.is_exact else _TOLERANCE[trial.wire_type]
    return Task(
        request_id, layers, trial.chunk_tokens, trial.first_token, tolerance, trial.withdraws
    )
