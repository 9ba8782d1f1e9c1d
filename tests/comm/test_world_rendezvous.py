"""How mpiruns find one another, with real sockets: who is let in, and what all are told."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from moe_comm.membership import Member
from moe_comm.transport.rendezvous import assemble, tell
from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_host import Host
from moe_comm.transport.rendezvous_point import MeetingPoint, RendezvousError
from moe_comm.transport.tcp_handshake import greet_host, send_message

POOLS = ("gpu", "npu", "host")
Start = Callable[..., Future[tuple[Answer, Host | None]]]


def party(pool: str, **changes: object) -> Party:
    """Two ranks each: gpu has plan ranks 0 and 1."""
    first = 2 * POOLS.index(pool)
    members = [
        Member(
            plan_rank=first + each,
            pool=pool,
            device_kind="cpu",
            host="here",
            process_id=1,
            local_rank=each,
            version="1",
            digest="abc",
            mpirun=first,
        )
        for each in range(2)
    ]
    return Party((pool,), "here", tuple(replace(each, **changes) for each in members))  # type: ignore[arg-type]


@pytest.fixture
def point() -> MeetingPoint:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return MeetingPoint(f"127.0.0.1:{free.getsockname()[1]}", b"secret", 4.0, 0.4)


@pytest.fixture
def start(point: MeetingPoint) -> Iterator[Start]:
    """start(party) is one mpirun's first rank, in a thread."""
    started: list[Future[tuple[Answer, Host | None]]] = []
    with ThreadPoolExecutor(8) as pool:

        def run(each: Party, **changes: object) -> Future[tuple[Answer, Host | None]]:
            there = replace(point, **changes)  # type: ignore[arg-type]
            is_host = "gpu" in each.pools
            started.append(pool.submit(assemble, there, each, POOLS, is_host=is_host))
            return started[-1]

        yield run
    for future in started:
        if future.exception() is None and (host := future.result()[1]) is not None:
            host.close()


def refusals(*futures: Future[tuple[Answer, Host | None]]) -> set[str]:
    found = set()
    for future in futures:
        error = future.exception(8)
        assert isinstance(error, RendezvousError), error
        found.add(str(error))
    return found


def test_all_learn_of_all_whoever_comes_first(start: Start, point: MeetingPoint) -> None:
    futures = [start(party("host")), start(party("npu"))]
    time.sleep(0.1)
    futures.append(start(party("gpu")))
    answers = [future.result(5)[0] for future in futures]
    assert answers[0] == answers[1] == answers[2]
    assert [member.plan_rank for member in answers[0].members] == list(range(6))
    assert len(answers[0].session) == 32
    with pytest.raises(RendezvousError, match=r"complete already: the mpirun of pool "):
        assemble(point, party("npu"), POOLS, is_host=False)


@pytest.mark.parametrize("pool", ["gpu", "npu"])
def test_a_pool_that_is_served_twice(start: Start, pool: str) -> None:
    futures = [start(party("gpu")), start(party("npu")), start(party(pool))]
    (sentence,) = refusals(*futures)
    assert sentence.startswith(f"pool {pool} is served twice, by the mpirun of pool {pool} on")


def test_members_that_disagree(start: Start) -> None:
    futures = [start(party("gpu")), start(party("host", digest="other"))]
    (sentence,) = refusals(*futures)
    assert "plan rank 4 on host here read a config with digest other, plan rank 0 abc" in sentence


def test_a_pool_that_plan_rank_0_does_not_know(start: Start) -> None:
    (sentence,) = refusals(start(party("gpu")), start(replace(party("npu"), pools=("tpu",))))
    assert "read a config with a pool tpu, plan rank 0 one with gpu, npu, host" in sentence


def test_a_pool_for_which_nobody_comes(start: Start) -> None:
    futures = [start(party("gpu"), wait_seconds=0.4), start(party("host"))]
    (sentence,) = refusals(*futures)
    assert sentence.startswith("nobody came for pool npu within 0.4 s; start an mpirun with")


def test_nobody_at_the_address(start: Start, point: MeetingPoint) -> None:
    (sentence,) = refusals(start(party("npu"), wait_seconds=0.3))
    assert sentence.startswith(f"world.address {point.address}: nobody answered within 0.3 s")


def test_another_secret_is_turned_away_and_does_no_harm(start: Start) -> None:
    gpu = start(party("gpu"))
    (sentence,) = refusals(start(party("npu"), secret=b"wrong"))
    assert "it holds another secret; give every mpirun the same world.secret file" in sentence
    futures = [start(party("npu")), start(party("host"))]
    assert gpu.result(5)[0] == futures[0].result(5)[0] == futures[1].result(5)[0]


def test_who_was_turned_away_is_named_when_nobody_else_comes(start: Start) -> None:
    gpu = start(party("gpu"), wait_seconds=0.6)
    refusals(start(party("npu"), secret=b"wrong"))
    (sentence,) = refusals(gpu)
    assert "turned away was 127.0.0.1:" in sentence and "another secret" in sentence


def test_another_protocol_ends_all_at_both_ends(start: Start) -> None:
    gpu, npu = start(party("gpu")), start(party("npu"))
    (theirs,) = refusals(start(party("host"), version=2))
    assert "it speaks version 1 of the world protocol, this end version 2" in theirs
    (ours,) = refusals(gpu, npu)
    assert "cannot join: it speaks version 2 of the world protocol, this end version 1" in ours


def test_an_error_ends_all(start: Start, point: MeetingPoint) -> None:
    gpu = start(party("gpu"))
    tell(point, Party(("npu",), "there", error="rank 2: no such file"), POOLS)
    (sentence,) = refusals(gpu, start(party("host")))
    assert sentence == "the mpirun of pool npu on host there cannot go on: rank 2: no such file"


def test_an_error_of_plan_rank_0_waits_for_the_others(start: Start, point: MeetingPoint) -> None:
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(tell, point, Party(("gpu",), "there", error="port taken"), POOLS)
        (sentence,) = refusals(start(party("npu")), start(party("host")))
        telling.result(1)
    assert sentence.endswith("cannot go on: port taken")


def test_a_party_that_ends_may_come_again(start: Start, point: MeetingPoint) -> None:
    import msgspec

    gpu = start(party("gpu"))
    host, port = point.address.split(":")
    time.sleep(0.1)
    with socket.create_connection((host, int(port)), 2) as connection:
        greet_host(connection, point.secret)
        send_message(connection, msgspec.msgpack.encode(party("npu")))
        time.sleep(0.1)
    time.sleep(0.2)
    futures = [start(party("npu")), start(party("host"))]
    assert gpu.result(5)[0] == futures[0].result(5)[0] == futures[1].result(5)[0]


def test_strangers_do_no_harm(start: Start, point: MeetingPoint) -> None:
    gpu = start(party("gpu"))
    host, port = point.address.split(":")
    time.sleep(0.1)
    with socket.create_connection((host, int(port)), 2) as curious:
        curious.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
        with socket.create_connection((host, int(port)), 2) as connection:
            greet_host(connection, point.secret)
            send_message(connection, b"no party")
            futures = [start(party("npu")), start(party("host"))]
            assert gpu.result(5)[0] == futures[0].result(5)[0] == futures[1].result(5)[0]
