"""The suite's own ranks: each sends KV to the endpoint under test and compares what comes back.

Shape legend: T tokens, H heads, d width.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_comm.kv.block import Parts
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import (
    Accepted,
    Completed,
    KvEvent,
    Landed,
    Offered,
    PeerLost,
    PeerReady,
    PeerRefused,
    ReceiveFailed,
    SendFailed,
)
from moe_comm.kv.hello import Hello, Layer
from moe_comm.kv.number_types import Array, convert
from moe_comm.kv.paged_arrays import PagedArrays


class ConformanceError(AssertionError):
    """The endpoint under test did otherwise than the protocol says."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one rank sends and asks back.

    Attributes:
        layers: float32 parts of each layer, [tokens, heads of this rank, width].
        chunk_tokens: of each block.
        first_token: from which it wants the KV back.
        tolerance: largest allowed difference, as a share of the row's largest magnitude.
        withdraws: half of it is sent and withdrawn before all of it is sent.
    """

    request_id: str
    layers: Sequence[Parts]
    chunk_tokens: int
    first_token: int
    tolerance: float
    withdraws: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.layers[0][0])


class Rank:
    """Sends the task once all `peers` are ready; keeps what comes back in pages of its own."""

    def __init__(
        self, endpoint: KvEndpoint, hello: Hello, peers: Sequence[str], task: Task
    ) -> None:
        self._endpoint = endpoint
        self._hello = hello
        self._peers = tuple(peers)
        self._ready: set[str] = set()
        self._task = task
        self._owed: deque[tuple[int, int, Parts]] = deque()
        pages_needed = -(-task.num_tokens // hello.page_size)
        self._pages = PagedArrays(hello, pages_needed, "PHSd")
        page_ids = self._pages.take(task.num_tokens)
        assert page_ids is not None
        self._page_ids = page_ids
        self._will_withdraw = task.withdraws
        self.is_done = False

    def turn(self) -> None:
        """
        Raises:
            ConformanceError: a transfer failed, or other numbers came back.
        """
        mine = self._task.request_id
        for event in self._endpoint.poll():
            if not self.is_done and getattr(event, "request_id", mine) == mine:
                self._hear(event)
        while self._owed and self._endpoint.send(self._task.request_id, *self._owed[0]):
            self._owed.popleft()
            if self._will_withdraw and not self._owed:
                self._endpoint.withdraw(self._task.request_id, "it is only a test")

    def _hear(self, event: KvEvent) -> None:
        match event:
            case PeerReady():
                self._ready.add(event.hello.name)
                if self._ready == set(self._peers):
                    self._offer()
            case Accepted():
                chunks = self._chunks(event.first_token)
                self._owed.extend(chunks[: len(chunks) // 2] if self._will_withdraw else chunks)
            case SendFailed() if self._will_withdraw and not self._owed:
                self._will_withdraw = False
                self._offer()
            case Offered():
                self._endpoint.accept(event.request_id, self._task.first_token)
            case Landed():
                place = event.layer, event.first_token, event.first_head
                self._pages.write(self._page_ids, *place, event.parts)
            case Completed():
                self._compare()
                self.is_done = True
            case PeerRefused() | PeerLost() | SendFailed() | ReceiveFailed():
                raise ConformanceError(f"{type(event).__name__}: {event.reason}")

    def _offer(self) -> None:
        task = self._task
        self._endpoint.offer(task.request_id, task.num_tokens, self._peers)

    def _chunks(self, first_token: int) -> list[tuple[int, int, Parts]]:
        task = self._task
        return [
            (index, start, self._cut(task.layers[index], start))
            for start in range(first_token, task.num_tokens, task.chunk_tokens)
            for index in range(len(task.layers))
        ]

    def _cut(self, parts: Parts, start: int) -> Parts:
        chunk = slice(start, start + self._task.chunk_tokens)
        first, second = (convert(part[chunk], "float32", self._hello.cache_type) for part in parts)
        return first, second

    def _compare(self) -> None:
        task = self._task
        for index, sent in enumerate(task.layers):
            back = self._pages.read(self._page_ids, index, 0, task.num_tokens)
            for part_THd, back_THd in zip(sent, back, strict=True):
                due_THd = part_THd.copy()
                due_THd[: task.first_token] = 0
                found_THd = convert(back_THd, self._hello.cache_type, "float32")
                self._compare_part(index, due_THd, found_THd)

    def _compare_part(self, layer: int, due_THd: Array, found_THd: Array) -> None:
        allowed_TH1 = self._task.tolerance * np.abs(due_THd).max(axis=-1, keepdims=True)
        wrong = np.argwhere(np.abs(found_THd - due_THd) > allowed_TH1)
        if len(wrong):
            token, head, column = map(int, wrong[0])
            raise ConformanceError(
                f"layer {layer}, token {token}, head {head}, number {column}: sent"
                f" {due_THd[token, head, column]}, came back {found_THd[token, head, column]}"
                f" ({len(wrong)} of {due_THd.size} numbers are wrong)"
            )


def exact_numbers(layer: Layer, num_heads: int, num_tokens: int, seed: int) -> Parts:
    """float32 numbers that every wire type carries unchanged: multiples of 1/64 up to 127/64,
    which is in every row."""
    random = np.random.default_rng(seed)
    first, second = (
        random.integers(-127, 128, (num_tokens, num_heads, width)).astype(np.float32)
        for width in layer.widths
    )
    for steps_THd in (first, second):
        column_TH1 = random.integers(steps_THd.shape[-1], size=(num_tokens, num_heads, 1))
        np.put_along_axis(steps_THd, column_TH1, 127, axis=-1)
    return first / np.float32(64), second / np.float32(64)


def any_numbers(layer: Layer, num_heads: int, num_tokens: int, seed: int) -> Parts:
    """float32 numbers of very different rows."""
    random = np.random.default_rng(seed)
    first, second = (
        random.standard_normal((num_tokens, num_heads, width), np.float32)
        * np.exp(random.uniform(-6, 6, (num_tokens, num_heads, 1))).astype(np.float32)
        for width in layer.widths
    )
    return first, second
