"""TcpExchange between real processes: what it moves, and what it says when a peer is lost."""

import os
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.tcp import TcpExchange
from moe_comm.transport.tcp_stream import FrameError
from tcp_ranks import ranks, stop_itself

WIDTH = 24
LARGE = 64 << 20


def rows_of(rank: int, count: int) -> torch.Tensor:
    first = torch.arange(count * WIDTH, dtype=torch.float32).view(count, WIDTH)
    return (first + 1000 * rank).to(torch.bfloat16)


def check_calls(exchange: TcpExchange) -> None:
    rank = exchange.rank
    gathered = exchange.allgather_bytes(b"ab" * rank)
    assert gathered == [b"ab" * each for each in range(exchange.size)]
    values = exchange.max_reduce(np.array([[rank, -rank], [7, 2 * rank]]))
    assert values.tolist() == [[2, 0], [7, 4]]
    counts = [2, 0, 3]
    everything = torch.cat([rows_of(each, counts[each]) for each in range(3)])
    assert torch.equal(exchange.allgather_rows(rows_of(rank, counts[rank]), counts), everything)
    exchange.barrier()


def check_rows(exchange: TcpExchange) -> None:
    """Rank r has r + n rows for rank n; two exchanges are under way, and a third overtakes."""
    rank, size = exchange.rank, exchange.size
    send = [rank + each for each in range(size)]
    slots = [2, 0, 1]
    slot_counts = np.array([rank, 0, 2 + rank])
    rows_RD = rows_of(rank, sum(send))
    first = exchange.start_rows(rows_RD, send, send)
    second = exchange.start_all_to_all(
        rows_of(rank, 2 * rank + 2), [rank, 0, rank + 2], slot_counts, slots
    )
    assert exchange.max_reduce(np.array([rank])).tolist() == [2]
    starts = [sum(each + n for n in range(rank)) for each in range(size)]
    expected = [rows_of(each, 9)[starts[each] :][: each + rank] for each in range(size)]
    assert torch.equal(first.finish(), torch.cat(expected))
    received_RD, counts_NS = second.finish()
    assert counts_NS.tolist() == ([[0, 0], [1, 0], [2, 0]], [[]] * 3, [[2], [3], [4]])[rank]
    starts = [0 if rank == 0 else each for each in range(size)]
    counts = counts_NS.sum(1).tolist()
    expected = [rows_of(each, 9)[starts[each] :][: counts[each]] for each in range(size)]
    assert torch.equal(received_RD, torch.cat(expected))


def check_all(exchange: TcpExchange) -> None:
    for _ in range(3):
        check_calls(exchange)
        check_rows(exchange)
    exchange.close()


def test_three_ranks_exchange_all_there_is() -> None:
    with ranks(3, check_all) as exchange:
        check_all(exchange)
        assert (exchange.rank, exchange.size, exchange.is_lost) == (0, 3, False)


def large_rows(rank: int) -> torch.Tensor:
    return torch.full((LARGE // 4096, 1024), float(rank))


def both_ways(exchange: TcpExchange) -> None:
    """Both ends send more than any buffer holds before either receives."""
    count = LARGE // 4096
    other = 1 - exchange.rank
    counts = [0, count] if other else [count, 0]
    pending = exchange.start_rows(large_rows(exchange.rank), counts, counts)
    exchange.barrier()
    received_RD = pending.finish()
    assert received_RD.shape == (count, 1024)
    assert bool((received_RD == other).all())


def test_large_buffers_both_ways_do_not_block() -> None:
    with ranks(2, both_ways) as exchange:
        both_ways(exchange)


def poll_alone(exchange: TcpExchange) -> None:
    """More rows than any buffer holds, and until they have come nobody waits."""
    other, count = 1 - exchange.rank, LARGE // 4096
    counts = [0, count] if other else [count, 0]
    pending = exchange.start_rows(large_rows(exchange.rank), counts, counts)
    deadline = time.monotonic() + 20.0
    while not pending.poll():
        assert time.monotonic() < deadline
    exchange.barrier()
    assert bool((pending.finish() == other).all())


def test_polls_alone_move_large_buffers() -> None:
    with ranks(2, poll_alone) as exchange:
        poll_alone(exchange)


def start_and_die(exchange: TcpExchange) -> None:
    count = LARGE // 4096
    exchange.start_rows(large_rows(1), [count, 0], [count, 0])
    exchange.barrier()
    os._exit(0)


def test_what_was_started_moves_in_later_calls() -> None:
    """The peer ends without a finish, and all of its rows have come all the same."""
    count = LARGE // 4096
    with ranks(2, start_and_die) as exchange:
        pending = exchange.start_rows(large_rows(0), [0, count], [0, count])
        exchange.barrier()
        assert bool((pending.finish() == 1).all())
        with pytest.raises(PeerLostError):
            exchange.barrier()


def die(exchange: TcpExchange) -> None:
    exchange.barrier()
    if exchange.rank == 2:
        os._exit(0)
    with pytest.raises(PeerLostError):
        exchange.barrier()
    # Rank 0 is to miss rank 2 alone.
    to_first = exchange._streams[0].connection
    to_first.settimeout(20)
    with suppress(ConnectionResetError):
        while to_first.recv(1 << 10):
            pass


def test_a_closed_peer_is_named_at_once() -> None:
    with ranks(3, die) as exchange:
        exchange.barrier()
        started = time.monotonic()
        with pytest.raises(PeerLostError, match="plan rank 8 closed the connection while arrival"):
            exchange.barrier()
        assert time.monotonic() - started < 3
        assert exchange.is_lost and exchange.lost_ranks == {8}
        with pytest.raises(PeerLostError, match="lost before"):
            exchange.max_reduce(np.zeros(1, dtype=np.int64))
        exchange.close()
        assert time.monotonic() - started < 3


def test_a_peer_that_ends_is_seen_while_nothing_is_exchanged() -> None:
    with ranks(3, die) as exchange:
        exchange.check_peers()
        exchange.barrier()
        end = time.monotonic() + 5
        with pytest.raises(PeerLostError, match="plan rank 8 closed the connection while nothing"):
            while time.monotonic() < end:
                exchange.check_peers()
        assert exchange.lost_ranks == {8}
        exchange.close()


def be_silent(exchange: TcpExchange) -> None:
    exchange.barrier()
    stop_itself()


def test_a_silent_peer_is_named_at_the_deadline() -> None:
    with ranks(2, be_silent, 0.4, others_end=False) as exchange:
        exchange.barrier()
        started = time.monotonic()
        with pytest.raises(PeerLostError, match=r"no answer after 0\.4 s .* from plan rank 5 "):
            exchange.barrier()
        assert 0.3 < time.monotonic() - started < 3
        assert exchange.is_lost and exchange.lost_ranks == {5}


def test_control_ends_a_wait_and_loses_nobody() -> None:
    told: list[bool] = []
    with ranks(2, be_silent, 60, lambda: bool(told), others_end=False) as one:
        one.barrier()
        told.append(True)
        with pytest.raises(PeerLostError, match=r"told to stop after 0\.0"):
            one.barrier()
        assert one.is_lost and not one.lost_ranks


def other_call(exchange: TcpExchange) -> None:
    with pytest.raises(FrameError):
        exchange.allgather_bytes(b"")


def fewer_rows(exchange: TcpExchange) -> None:
    exchange.start_rows(rows_of(1, 2), [2, 0], [0, 0])
    os._exit(0)


def no_frame(exchange: TcpExchange) -> None:
    exchange._streams[0].connection.send(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (other_call, r"plan rank 5 sent a frame of kind 1 as number 0, here it is 5 \(rows\)"),
        (fewer_rows, "rows of 96 bytes came, 144 were to come"),
        (no_frame, "plan rank 5 sent a frame of kind 84 with number 51.*, 0 was due"),
    ],
)
def test_a_slip_is_an_error(slip: object, said: str) -> None:
    with ranks(2, slip) as exchange, pytest.raises(FrameError, match=said):  # type: ignore[arg-type]
        exchange.start_rows(rows_of(0, 3), [0, 3], [0, 3]).finish()


def leave_first(exchange: TcpExchange) -> None:
    exchange.close()


def test_a_peer_that_said_goodbye_is_not_lost() -> None:
    with ranks(3, leave_first) as exchange:
        exchange.close()
        assert not exchange.is_lost
