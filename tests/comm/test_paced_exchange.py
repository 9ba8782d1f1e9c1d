"""Declared links: what leaves over them takes their time, at the sender and at the receiver."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.paced import over_links
from moe_devices.pacer import DeadlinePacer, RealTime
from moe_devices.work import LinkWork, Work

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]
WORKER = str(Path(__file__).parent / "paced_worker.py")


class Link:
    """A pace of 1 kB/s that remembers what it was asked."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def __call__(self, work: Work) -> float:
        self.works.append(work)
        assert isinstance(work, LinkWork)
        return sum(work.bytes_by_link.values()) / 1000


def paced(link: str) -> tuple[Exchange, Link]:
    pace = Link()
    return over_links(LocalExchange(), DeadlinePacer(pace, 1.0), [link]), pace


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_take_their_links_time_and_arrive_unchanged(dtype: torch.dtype) -> None:
    exchange, pace = paced("a>b")
    rows_RD = torch.randn(3, 4).to(dtype)
    begun = time.perf_counter()
    out_RD = exchange.start_rows(rows_RD, [3], [3]).finish()
    num_bytes = 12 * rows_RD.element_size()
    assert time.perf_counter() - begun >= num_bytes / 1000
    assert pace.works == [LinkWork({"a>b": num_bytes})]
    assert torch.equal(out_RD, rows_RD)


def test_counts_go_with_their_rows() -> None:
    exchange, pace = paced("a>b")
    counts = np.array([1, 0, 2])
    rows_RD, counts_NS = exchange.start_all_to_all(torch.ones(3, 1), [3], counts, [3]).finish()
    assert pace.works == [LinkWork({"a>b": 12})]
    assert counts_NS.tolist() == [[1, 0, 2]]
    assert len(rows_RD) == 3


@pytest.mark.parametrize(("link", "num_rows"), [("", 5), ("a>b", 0)])
def test_what_crosses_no_link_is_not_paced(link: str, num_rows: int) -> None:
    exchange, pace = paced(link)
    exchange.start_rows(torch.ones(num_rows, 2), [num_rows], [num_rows]).finish()
    assert pace.works == [LinkWork({})]


def test_a_real_device_has_its_exchange_as_it_is() -> None:
    inner = LocalExchange()
    assert over_links(inner, RealTime(), ["a>b"]) is inner


def test_the_rest_passes_through() -> None:
    exchange, _ = paced("a>b")
    assert (exchange.rank, exchange.size) == (0, 1)
    assert exchange.allgather_bytes(b"x") == [b"x"]
    assert exchange.max_reduce(np.array([3])).tolist() == [3]
    assert torch.equal(exchange.allgather_rows(torch.ones(1, 2), [1]), torch.ones(1, 2))
    exchange.barrier()
    exchange.close()


@pytest.mark.slow
def test_two_ranks_wait_for_their_link(mpirun: MpiRun) -> None:
    done = mpirun(2, ["-W", "error", WORKER], timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:2]) == ["rank 0 passed", "rank 1 passed"]
