"""One rank of a world of two mpiruns: `mpirun -n 2 python world_worker.py ADDRESS POOL FIRST`.

It joins, and runs the checks of `mpi_worker.py` over what the world opens.
"""

import os
import socket
import sys
import traceback
from dataclasses import replace

import msgspec
import torch
from moe_comm.launch import read_launch
from moe_comm.membership import Member, Membership, encode_member, membership
from moe_comm.transport.joined import Joined
from moe_comm.transport.mpi import MpiExchange
from moe_comm.transport.rendezvous import assemble
from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_point import MeetingPoint
from moe_comm.transport.roll_call import RollCall
from moe_comm.transport.tcp import TcpExchange
from moe_comm.transport.tcp_connect import listen
from moe_comm.transport.world import World, open_world
from mpi_worker import CPU, check_exchange, end_all_ranks, never

POOLS = ("first", "second")


def join(ranks: RollCall, address: str, pool: str, first: int, local_rank: int) -> Joined:
    listener = listen("127.0.0.1")
    own = Member(
        plan_rank=first + ranks.rank,
        pool=pool,
        device_kind="cpu",
        host=socket.gethostname(),
        process_id=os.getpid(),
        local_rank=local_rank,
        version="1",
        digest="abc",
        mpirun=first,
        address=f"127.0.0.1:{listener.getsockname()[1]}",
    )
    members = membership(0, ranks.allgather_bytes(encode_member(own))).members
    point, answer, host = MeetingPoint(address, b"secret", 20.0), Answer(), None
    if ranks.rank == 0:
        party = Party((pool,), own.host, members)
        answer, host = assemble(point, party, POOLS, is_host=first == 0)
    shared = ranks.allgather_bytes(msgspec.msgpack.encode(answer))[0]
    answer = msgspec.msgpack.decode(shared, type=Answer)
    world = Membership(0, answer.members)
    return Joined(own.plan_rank, world, point.key(answer.session), listener, host)


def check_world(world: World) -> None:
    everyone = world.open_exchange(range(world.size), 20, never)
    assert isinstance(everyone, TcpExchange)
    assert (everyone.rank, everyone.size) == (world.plan_rank, world.size)
    # The checks speak through the launch's rank 0: here that is plan rank 0 alone.
    world.launch = replace(world.launch, rank=world.plan_rank)
    check_exchange(world, everyone, CPU)
    check_groups(world)
    again = world.open_exchange(range(world.size), 20, never)
    assert again.allgather_bytes(b"%d" % world.plan_rank) == [b"0", b"1", b"2"]
    if world.plan_rank == 0:
        print("passed check_groups", flush=True)


def check_groups(world: World) -> None:
    """Inside the mpiruns it is MPI; across them TCP, beside one that is left over."""
    inside = world.open_exchange([0, 1] if world.plan_rank < 2 else [2], 20, never)
    assert isinstance(inside, MpiExchange) == (world.plan_rank < 2)
    across = world.open_exchange([1] if world.plan_rank == 1 else [2, 0], 20, never)
    assert isinstance(across, TcpExchange) == (world.plan_rank != 1)
    assert (
        inside.allgather_bytes(b"%d" % world.plan_rank)
        == ([b"0", b"1"], [b"2"])[world.plan_rank == 2]
    )
    assert (
        across.allgather_bytes(b"%d" % world.plan_rank)
        == ([b"0", b"2"], [b"1"])[world.plan_rank == 1]
    )


def main() -> None:
    torch.set_num_threads(1)
    address, pool, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
    launch = read_launch(os.environ)
    ranks = RollCall(launch)
    try:
        world = open_world(launch, join(ranks, address, pool, first, launch.local_rank))
        check_world(world)
        world.close()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        end_all_ranks(1)
    print("closed", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
