"""An endpoint to run the conformance suite against: keeps what it receives, and offers it back."""

import argparse
import os
import select
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import (
    Accepted,
    Completed,
    Delivered,
    KvEvent,
    Landed,
    Offered,
    ReceiveFailed,
    SendFailed,
)
from moe_comm.kv.hello import Hello
from moe_comm.kv.limits import KvLimits
from moe_comm.kv.paged_arrays import Layout, PagedArrays

_CHUNK_TOKENS = 24
_TURN_SECONDS = 0.02


@dataclass(slots=True)
class _Kept:
    """Attributes:
    owed: layers and token ranges still to be handed over.
    """

    num_tokens: int
    peers: tuple[str, ...]
    page_ids: tuple[int, ...]
    owed: deque[tuple[int, int, int]] = field(default_factory=deque)


class EchoEngine:
    """One rank: `turn` does what is to be done, and never waits."""

    def __init__(self, endpoint: KvEndpoint, hello: Hello, pages: PagedArrays) -> None:
        self._endpoint = endpoint
        self._num_layers = len(hello.layers)
        self._pages = pages
        self._kept: dict[str, _Kept] = {}

    def fileno(self) -> int:
        return self._endpoint.fileno()

    def turn(self) -> None:
        for event in self._endpoint.poll():
            self._hear(event)
        for request_id, kept in self._kept.items():
            while kept.owed and self._send(request_id, kept, *kept.owed[0]):
                kept.owed.popleft()

    def _hear(self, event: KvEvent) -> None:
        match event:
            case Offered():
                self._welcome(event)
            case Landed():
                page_ids = self._kept[event.request_id].page_ids
                place = event.layer, event.first_token, event.first_head
                self._pages.write(page_ids, *place, event.parts)
            case Completed():
                kept = self._kept[event.request_id]
                self._endpoint.offer(event.request_id, kept.num_tokens, kept.peers)
            case Accepted():
                kept = self._kept[event.request_id]
                kept.owed.extend(self._chunks(event.first_token, kept.num_tokens))
            case Delivered() | SendFailed() | ReceiveFailed():
                if event.request_id in self._kept:
                    self._pages.give_back(self._kept.pop(event.request_id).page_ids)

    def _welcome(self, event: Offered) -> None:
        page_ids = self._pages.take(event.num_tokens)
        if page_ids is None or event.request_id in self._kept:
            reason = "no free pages" if page_ids is None else "it is still being sent back"
            self._endpoint.refuse(event.request_id, reason)
            self._pages.give_back(page_ids or ())
            return
        self._kept[event.request_id] = _Kept(event.num_tokens, event.peers, page_ids)
        self._endpoint.accept(event.request_id, 0)

    def _chunks(self, first_token: int, num_tokens: int) -> list[tuple[int, int, int]]:
        return [
            (layer, first, min(first + _CHUNK_TOKENS, num_tokens))
            for first in range(first_token, num_tokens, _CHUNK_TOKENS)
            for layer in range(self._num_layers)
        ]

    def _send(self, request_id: str, kept: _Kept, layer: int, first: int, end: int) -> bool:
        parts = self._pages.read(kept.page_ids, layer, first, end)
        return self._endpoint.send(request_id, layer, first, parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hellos", help="JSON file: a list with the hello of each rank")
    parser.add_argument("--secret-file", type=Path, required=True)
    parser.add_argument("--layout", choices=("PSHd", "PHSd"), default="PSHd")
    parser.add_argument("--pages", type=int, default=64)
    parser.add_argument("--bytes-in-flight", type=int, default=KvLimits().bytes_in_flight)
    options = parser.parse_args(arguments)
    hellos = msgspec.json.decode(Path(options.hellos).read_bytes(), type=list[Hello])
    secret = options.secret_file.read_bytes()
    limits = KvLimits(bytes_in_flight=options.bytes_in_flight)
    endpoints = [KvEndpoint(hello, secret, limits=limits) for hello in hellos]
    print(*(f"127.0.0.1:{endpoint.port}" for endpoint in endpoints), flush=True)
    engines = [
        _engine(endpoint, hello, options.pages, options.layout)
        for endpoint, hello in zip(endpoints, hellos, strict=True)
    ]
    _serve(engines)
    for endpoint in endpoints:
        endpoint.close()


def _engine(endpoint: KvEndpoint, hello: Hello, num_pages: int, layout: Layout) -> EchoEngine:
    return EchoEngine(endpoint, hello, PagedArrays(hello, num_pages, layout))


def _serve(engines: Sequence[EchoEngine]) -> None:
    """Until standard input ends."""
    while True:
        ready, _, _ = select.select([sys.stdin, *engines], [], [], _TURN_SECONDS)
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 1):
            return
        for engine in engines:
            engine.turn()


if __name__ == "__main__":
    main()
