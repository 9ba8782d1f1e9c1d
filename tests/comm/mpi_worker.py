"""One rank of the exchange checks: `mpirun -n N python mpi_worker.py agreeing|lost BACKEND`.

The backend is of torch.distributed: gloo on CPUs, nccl with a GPU for each rank. Every check runs
on all ranks; one that fails prints its traceback and ends them all.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable

import numpy as np
import torch
from moe_comm.collective import CollectiveDispatcher
from moe_comm.header import NUM_TURNS, EpochError, StepHeader, agree
from moe_comm.launch import read_launch
from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_comm.transport.torch_dist import open_torch_exchange
from moe_comm.transport.world import World, open_world
from moe_devices.discover import open_device
from mpi_cases import WIDTH, Placement, Tokens, compute, on_one_rank
from poll_checks import check_polled_rows
from sum_checks import check_gathered_rows, check_ordered_sum

SHORT_SECONDS = 0.6
CPU = torch.device("cpu")
DEVICE_KINDS = {"gloo": "cpu", "nccl": "cuda"}


def check_collective_equals_local(exchange: Exchange, device: torch.device) -> None:
    for seed in range(6):
        placement = Placement(exchange.size, seed)
        for dtype in (torch.float32, torch.bfloat16):
            tokens = Tokens(exchange.rank, seed, dtype, device)
            spread = CollectiveDispatcher(exchange, {4: placement.table(4)})
            slots = placement.slots[exchange.rank]
            y_TD = compute(spread, tokens.start(spread, 4), slots).finish()
            expected = on_one_rank(tokens, 4)
            assert y_TD.dtype == dtype
            assert torch.equal(y_TD, expected), f"seed {seed} {dtype}"


def check_dropped_row_is_seen(exchange: Exchange, device: torch.device) -> None:
    placement = Placement(exchange.size, 3)
    tokens = Tokens(exchange.rank, 3, torch.bfloat16, device)
    spread = CollectiveDispatcher(exchange, {0: placement.table(0)})
    faulty = exchange.rank == exchange.size - 1
    slots = placement.slots[exchange.rank]
    y_TD = compute(spread, tokens.start(spread, 0), slots, faulty).finish()
    wrong = (y_TD != on_one_rank(tokens, 0)).any(1).sum()
    ours = np.zeros(exchange.size, dtype=np.int64)
    ours[exchange.rank] = int(wrong)
    assert exchange.max_reduce(ours).sum() == 1


def check_two_layers_under_way(exchange: Exchange, device: torch.device) -> None:
    """A second dispatch starts before the first one's rows have been asked for."""
    placements = {0: Placement(exchange.size, 1), 1: Placement(exchange.size, 2)}
    spread = CollectiveDispatcher(exchange, {n: p.table(n) for n, p in placements.items()})
    slots = {layer: placements[layer].slots[exchange.rank] for layer in placements}
    for seed in range(5):
        first = Tokens(exchange.rank, seed, torch.float32, device)
        second = Tokens(exchange.rank, seed + 1, torch.bfloat16, device)
        pending, later = first.start(spread, 0), second.start(spread, 1)
        time.sleep(0.002 * ((exchange.rank + seed) % 2))
        combine = compute(spread, pending, slots[0])
        later_combine = compute(spread, later, slots[1])
        assert torch.equal(combine.finish(), on_one_rank(first, 0))
        assert torch.equal(later_combine.finish(), on_one_rank(second, 1))


def check_bytes_sent(exchange: Exchange, device: torch.device) -> None:
    table = Placement(exchange.size, 5).table(2)
    spread = CollectiveDispatcher(exchange, {2: table})
    tokens = Tokens(exchange.rank, 5, torch.bfloat16, device)
    compute(
        spread, tokens.start(spread, 2), Placement(exchange.size, 5).slots[exchange.rank]
    ).finish()
    sent = 0
    rank_G = np.repeat(np.arange(exchange.size), table.slots_per_rank)
    for rank in range(exchange.size):
        theirs = Tokens(rank, 5, torch.bfloat16, CPU)
        keys_T = theirs.keys_T.numpy().view(np.uint64)
        rank_TK = rank_G[table.choose_slots(theirs.ids_TK.numpy(), keys_T)]
        # Ours that go out, and theirs that come here and go back.
        is_sent = rank_TK != rank if rank == exchange.rank else rank_TK == exchange.rank
        sent += int(is_sent.sum())
    assert (sent > 0) == (exchange.size > 1)
    assert spread.bytes_sent == sent * WIDTH * 2


def check_header(exchange: Exchange) -> None:
    rank, last = exchange.rank, exchange.size - 1
    idle = StepHeader(work=False, wake=rank, plan_epoch=3, clock=rank, ready_change=rank)
    found = StepHeader(work=False, wake=last, plan_epoch=3, clock=last, ready_change=0)
    assert agree(exchange, idle) == found
    turns = frozenset([rank, NUM_TURNS - 1])
    busy = StepHeader(work=rank == last, wake=5, plan_epoch=0, stop=rank == 0, turns=turns)
    every = frozenset([*range(last + 1), NUM_TURNS - 1])
    found = StepHeader(work=True, wake=5, plan_epoch=0, stop=True, turns=every)
    assert agree(exchange, busy) == found
    if exchange.size == 1:
        return
    try:
        agree(exchange, StepHeader(work=False, wake=0, plan_epoch=4 + (rank == last)))
    except EpochError as error:
        assert "epochs 4 to 5" in str(error)
    else:
        raise AssertionError("different epochs were not seen")


def check_gather(exchange: Exchange) -> None:
    gathered = exchange.allgather_bytes(b"ab" * exchange.rank)
    assert gathered == [b"ab" * rank for rank in range(exchange.size)]


def check_groups(world: World) -> None:
    """Rank 0 alone, the others together, numbered by plan rank however they are named."""
    others = list(range(world.size - 1, 0, -1))
    group = others if world.plan_rank else [0]
    exchange = world.open_exchange(group, 30, never)
    assert (exchange.rank, exchange.size) == (max(0, world.plan_rank - 1), len(group))
    expected = [b"%d" % rank for rank in sorted(group)]
    assert exchange.allgather_bytes(b"%d" % world.plan_rank) == expected


def never() -> bool:
    return False


def check_all(world: World, backend: str) -> None:
    device = open_device(DEVICE_KINDS[backend], world.launch.local_rank).torch_device
    over_mpi = world.open_exchange(range(world.size), 30, never)
    over_torch = open_torch_exchange(over_mpi, "127.0.0.1", backend, device, 30, never)
    beside = open_torch_exchange(over_mpi, "127.0.0.1", backend, device, 30, never)
    for exchange, place in ((over_mpi, CPU), (over_torch, device)):
        check_exchange(world, exchange, place)
    over_torch.close()
    check_gathered_rows(beside, device)
    beside.close()
    check_groups(world)
    say(world, "passed check_groups")


def check_exchange(world: World, exchange: Exchange, device: torch.device) -> None:
    """
    Args:
        device: where the tensors are.
    """
    of_bytes: list[Callable[[Exchange], None]] = [check_gather, check_header]
    of_tensors: list[Callable[[Exchange, torch.device], None]] = [
        check_collective_equals_local,
        check_dropped_row_is_seen,
        check_two_layers_under_way,
        check_bytes_sent,
        check_gathered_rows,
        check_ordered_sum,
        check_polled_rows,
    ]
    for check in of_bytes:
        check(exchange)
        say(world, f"passed {check.__name__} {type(exchange).__name__}")
    for check_tensors in of_tensors:
        check_tensors(exchange, device)
        say(world, f"passed {check_tensors.__name__} {type(exchange).__name__}")


def check_lost_peer(world: World, backend: str) -> None:
    """The last rank stops answering; the others must say so in time, over either transport.

    Then one that lost its peer can close at once, and another can end them all.
    """
    is_silent = world.launch.rank == world.launch.size - 1
    told: list[bool] = []
    over_mpi = world.open_exchange(range(world.size), SHORT_SECONDS, never)
    stoppable = world.open_exchange(range(world.size), 60, lambda: bool(told))
    over_torch = open_torch_exchange(over_mpi, "127.0.0.1", backend, CPU, SHORT_SECONDS, never)
    if is_silent:
        time.sleep(60)
    for exchange in (over_mpi, over_torch):
        lose(exchange, "no answer")
    told.append(True)
    lose(stoppable, "told to stop")
    if world.launch.rank == 0:
        time.sleep(2 * SHORT_SECONDS)
        end_all_ranks(3)
    world.close()
    print("closed", flush=True)
    time.sleep(60)


def lose(exchange: Exchange, reason: str) -> None:
    table = Placement(exchange.size, 1).table(0)
    spread = CollectiveDispatcher(exchange, {0: table})
    started = time.monotonic()
    try:
        compute(
            spread,
            Tokens(exchange.rank, 1, torch.float32, CPU).start(spread, 0),
            Placement(exchange.size, 1).slots[exchange.rank],
        ).finish()
    except PeerLostError as error:
        seconds = time.monotonic() - started
        print(f"{type(exchange).__name__} lost after {seconds:.2f}: {error}", flush=True)
        assert reason in str(error)
    else:
        raise AssertionError("a silent peer was not missed")
    exchange.close()
    assert time.monotonic() - started < 5


def say(world: World, text: str) -> None:
    if world.launch.rank == 0:
        print(text, flush=True)


def end_all_ranks(exit_code: int) -> None:
    from mpi4py import MPI

    MPI.COMM_WORLD.Abort(exit_code)


def main() -> None:
    torch.set_num_threads(1)
    world = open_world(read_launch(os.environ))
    try:
        {"agreeing": check_all, "lost": check_lost_peer}[sys.argv[1]](world, sys.argv[2])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        end_all_ranks(1)
    world.close()
    say(world, "closed")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
