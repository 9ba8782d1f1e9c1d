"""The conformance suite sees engines that do it wrong."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from kv_ends import SECRET, hello
from moe_comm.kv.block import Parts
from moe_comm.kv.conformance import refusals
from moe_comm.kv.conformance.echo import EchoEngine
from moe_comm.kv.conformance.suite import suite
from moe_comm.kv.conformance.tester import ConformanceError
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.frames import encode_head
from moe_comm.kv.messages import Ping
from moe_comm.kv.paged_arrays import PagedArrays
from moe_comm.kv.rotary_order import reorder


class LosesATokenOfEachBlock(PagedArrays):
    def write(
        self, page_ids: Sequence[int], layer: int, first: int, first_head: int, parts: Parts
    ) -> None:
        super().write(page_ids, layer, first, first_head, (parts[0][:-1], parts[1]))


class SwapsHeads(PagedArrays):
    def read(self, page_ids: Sequence[int], layer: int, first: int, end: int) -> Parts:
        keys, values = super().read(page_ids, layer, first, end)
        return keys, np.roll(values, 1, axis=1)


class ReadsAPageOfAnother(PagedArrays):
    def read(self, page_ids: Sequence[int], layer: int, first: int, end: int) -> Parts:
        return super().read((page_ids[0], page_ids[0], *page_ids[2:]), layer, first, end)


class KeepsTheSendersOrder(PagedArrays):
    def write(
        self, page_ids: Sequence[int], layer: int, first: int, first_head: int, parts: Parts
    ) -> None:
        parts = reorder(parts[0], 4, "interleaved"), parts[1]
        super().write(page_ids, layer, first, first_head, parts)


@contextmanager
def engine(pages: type[PagedArrays], secret: bytes = SECRET) -> Iterator[str]:
    """The address of an echoing engine with such a cache, in a thread."""
    declared = hello("e", page_size=8)
    endpoint = KvEndpoint(declared, secret)
    echoing = EchoEngine(endpoint, declared, pages(declared, 64, "PSHd"))
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.wait(0.002):
            echoing.turn()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{endpoint.port}"
    finally:
        is_over.set()
        thread.join(5)
        endpoint.close()


@pytest.mark.parametrize(
    ("pages", "name"),
    [
        (LosesATokenOfEachBlock, "float32"),
        (SwapsHeads, "float32"),
        (ReadsAPageOfAnother, "int8, any numbers"),
        (KeepsTheSendersOrder, "int8, interleaved rotary order"),
    ],
)
def test_wrong_numbers_are_seen(pages: type[PagedArrays], name: str) -> None:
    for each in (PagedArrays, pages):
        with engine(each) as address:
            fault = next(check for check in suite([address], SECRET) if check.name == name).fault()
        assert (fault is None) == (each is PagedArrays), fault
    assert fault is not None and "numbers are wrong" in fault


def test_an_engine_that_takes_what_it_should_refuse_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "_SECONDS", 0.3)
    suits = hello("a")
    with engine(PagedArrays, b"known?") as address:
        refusal = refusals.Refusal("nothing", suits, "model")
        with pytest.raises(ConformanceError, match="kept the connection"):
            asyncio.run(refusals.run_refusal(address, b"known?", refusal))
        harmless = refusals.Nonsense("a ping", encode_head(Ping()))
        with pytest.raises(ConformanceError, match="kept the connection"):
            asyncio.run(refusals.run_nonsense(address, b"known?", suits, harmless))
        with pytest.raises(ConformanceError, match="a secret that it cannot know"):
            asyncio.run(refusals.run_wrong_secret(address, b"known", suits))
