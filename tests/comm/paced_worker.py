"""One rank of the paced exchange checks: rank 0 has rows for rank 1, over a link that takes time.

All clocks are the host's, so that one rank's times mean something to the other.
"""

import os
import time
import traceback

import numpy as np
import torch
from moe_comm.launch import read_launch
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.paced import over_links
from moe_comm.transport.world import open_world
from moe_devices.pacer import DeadlinePacer
from moe_devices.work import LinkWork, Work

LINK_SECONDS = 0.3
LATE_SECONDS = 0.05
OVERLAPPED_SECONDS = 0.25


def declared(work: Work) -> float:
    return LINK_SECONDS if isinstance(work, LinkWork) and work.bytes_by_link else 0.0


def check_receiver_waits_for_the_link(exchange: Exchange) -> None:
    """The receiver asks early, the sender starts late and works meanwhile: neither shortens it."""
    exchange.barrier()
    entered = time.perf_counter()
    counts = [0, 2] if exchange.rank == 0 else [0, 0]
    if exchange.rank == 0:
        time.sleep(LATE_SECONDS)
    started = time.perf_counter()
    slot_counts_G = np.array(counts, np.int64)
    pending = exchange.start_all_to_all(torch.ones(sum(counts), 3), counts, slot_counts_G, [1, 1])
    if exchange.rank == 0:
        time.sleep(OVERLAPPED_SECONDS)
    rows_RD, _ = pending.finish()
    arrived = time.perf_counter()
    assert rows_RD.shape == ((0, 3) if exchange.rank == 0 else (2, 3))
    if exchange.rank == 0:
        assert arrived - started >= LINK_SECONDS
        assert arrived - started < LINK_SECONDS + OVERLAPPED_SECONDS, "no overlap"
    else:
        assert arrived - entered >= LATE_SECONDS + LINK_SECONDS - 0.01, arrived - entered


def main() -> None:
    torch.set_num_threads(1)
    world = open_world(read_launch(os.environ))
    try:
        inner = world.open_exchange([0, 1], 30, lambda: False)
        pacer = DeadlinePacer(declared, 1.0)
        links = ["", "a>b"] if world.plan_rank == 0 else ["b>a", ""]
        exchange = over_links(inner, pacer, links)
        check_receiver_waits_for_the_link(exchange)
        num_segments = sum(count.num_segments for count in pacer.counts.values())
        assert num_segments == (1 if world.plan_rank == 0 else 0)
        print(f"rank {world.plan_rank} passed", flush=True)
    except BaseException:
        traceback.print_exc()
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(1)
    world.close()


if __name__ == "__main__":
    main()
