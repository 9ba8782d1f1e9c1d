"""Rows that come by polls alone, before anyone waits for them; run by mpi_worker.py."""

import time

import numpy as np
import torch
from moe_comm.transport.exchange import Exchange, Pending

POLL_SECONDS = 20.0
COUNT, WIDTH = 300, 1024


def check_polled_rows(exchange: Exchange, device: torch.device) -> None:
    """Rows whose counts come late, then rows whose counts are known; the last rank is late."""
    rank, size = exchange.rank, exchange.size
    counts = [COUNT] * size
    rows_RD = torch.full((COUNT * size, WIDTH), float(rank), device=device)
    if rank == size - 1:
        time.sleep(0.05)
    slot_counts = np.full(size, COUNT, dtype=np.int64)
    counted = exchange.start_all_to_all(rows_RD, counts, slot_counts, [1] * size)
    known = exchange.start_rows(rows_RD + 0.5, counts, counts)
    poll_until_through(counted)
    poll_until_through(known)
    expected_R = torch.arange(size, device=device).repeat_interleave(COUNT).float()
    received_RD, counts_NS = counted.finish()
    assert counts_NS.tolist() == [[COUNT]] * size
    assert torch.equal(received_RD[:, 0], expected_R)
    assert torch.equal(known.finish()[:, -1], expected_R + 0.5)
    exchange.barrier()


def poll_until_through(pending: Pending[object]) -> None:
    deadline = time.monotonic() + POLL_SECONDS
    while not pending.poll():
        assert time.monotonic() < deadline, f"not through after {POLL_SECONDS} s of polls"
