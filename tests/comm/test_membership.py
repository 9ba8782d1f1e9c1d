"""What members say when they do not agree."""

from dataclasses import replace

import pytest
from moe_comm.launch import Launch, read_launch
from moe_comm.membership import (
    Member,
    Membership,
    device_index,
    disagreement,
    encode_member,
    host_ranks,
    membership,
)

# The first one reads none.
WEIGHTS = ((1, "x"), (2, "x"), (3, "y"))


def member(plan_rank: int) -> Member:
    return Member(
        plan_rank=plan_rank,
        pool="host" if plan_rank < 2 else "fast",
        device_kind="cpu" if plan_rank < 2 else "cuda",
        host=f"node{plan_rank % 2}",
        process_id=100 + plan_rank,
        local_rank=plan_rank // 2,
        version="0.1.0",
        digest="abc",
    )


def world(**changes: object) -> Membership:
    """Four members; `rank_2={"version": "9"}` changes one."""
    members = [member(plan_rank) for plan_rank in range(4)]
    for name, fields in changes.items():
        index = int(name.removeprefix("rank_"))
        members[index] = replace(members[index], **fields)  # type: ignore[arg-type]
    return Membership(0, tuple(sorted(members, key=lambda each: each.plan_rank)))


def test_members_that_agree() -> None:
    assert disagreement(world()) is None
    assert disagreement(Membership(0, (member(0),))) is None


def test_hosts_of_one_name_are_told_apart() -> None:
    names = {"host": "localhost", "local_rank": 0}
    hosts = {f"rank_{rank}": names | {"host_identity": f"{rank}"} for rank in range(4)}
    assert disagreement(world(**hosts)) is None
    sentence = disagreement(world(**hosts | {"rank_2": names | {"host_identity": "1"}}))
    assert sentence is not None
    assert sentence.startswith("plan rank 2 has local rank 0 on host localhost, as plan rank 1")


def test_mpiruns_of_one_host_count_their_ranks_alike() -> None:
    """Two mpiruns of two ranks on one host: what one launcher calls 0 the other calls 0 too."""
    places = [(0, 0), (0, 1), (2, 0), (2, 1)]
    seats = {
        f"rank_{rank}": {"host": "one", "mpirun": mpirun, "local_rank": local_rank}
        for rank, (mpirun, local_rank) in enumerate(places)
    }
    assert disagreement(world(**seats)) is None
    sentence = disagreement(world(**seats | {"rank_3": seats["rank_2"]}))
    assert sentence is not None
    assert sentence.startswith("plan rank 3 has local rank 0 on host one, as plan rank 2 has")
    assert host_ranks(world(**seats), 2) == [0, 1, 2, 3]


def test_ranks_take_the_devices_of_their_kind_on_their_host() -> None:
    """Even ranks are on node0: one cpu and one cuda; then four on one host."""
    assert [device_index(world(), rank) for rank in range(4)] == [0, 0, 0, 0]
    one_host: dict[str, dict[str, object]] = {f"rank_{rank}": {"host": "one"} for rank in range(4)}
    assert [device_index(world(**one_host), rank) for rank in range(4)] == [0, 1, 0, 1]
    one_host["rank_1"] = {"host": "one", "pool": "fast", "device_kind": "cuda"}
    assert [device_index(world(**one_host), rank) for rank in range(4)] == [0, 0, 1, 2]


def test_who_is_still_to_come_is_not_missed_yet() -> None:
    some = Membership(0, world().members[2:])
    assert disagreement(some, is_complete=False) is None
    assert disagreement(some) == "plan rank 0 of 2 is missing"


def test_members_travel_and_are_ordered_by_plan_rank() -> None:
    encoded = [encode_member(member(plan_rank)) for plan_rank in (2, 0, 3, 1)]
    assert membership(7, encoded) == Membership(7, world().members)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank_2": {"version": "9"}}, ["plan rank 2 on host node0 runs version 9", "0.1.0"]),
        ({"rank_0": {"version": "9"}}, ["plan rank 0 on host node0 runs version 9", "0.1.0"]),
        ({"rank_3": {"digest": "x"}, "rank_1": {"version": "9"}}, ["plan rank 1", "version 9"]),
        ({"rank_3": {"digest": "x"}}, ["plan rank 3", "config with digest x", "abc"]),
        (
            {f"rank_{rank}": {"model_digests": {"weights": each}} for rank, each in WEIGHTS},
            ["plan rank 3 on host node1 reads weights with digest y, plan rank 1 x"],
        ),
        ({"rank_3": {"device_kind": "npu"}}, ["plan rank 3", "pool 'fast'", "npu", "cuda"]),
        ({"rank_3": {"plan_rank": 2}}, ["plan rank 2 is taken by 2 processes"]),
        ({"rank_1": {"plan_rank": 9}}, ["plan rank 1 of 4 is missing"]),
        ({"rank_3": {"local_rank": 0}}, ["plan rank 3 has local rank 0 on host node1"]),
    ],
)
def test_the_lowest_rank_at_fault_is_named(
    changes: dict[str, dict[str, object]], words: list[str]
) -> None:
    sentence = disagreement(world(**changes))
    assert sentence is not None
    assert [word for word in words if word not in sentence] == [], sentence


def test_the_launcher_is_read_from_its_variables() -> None:
    assert read_launch({"PATH": "/bin"}) == Launch(0, 1, 0, 1)
    open_mpi = {
        "OMPI_COMM_WORLD_RANK": "5",
        "OMPI_COMM_WORLD_SIZE": "8",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    }
    assert read_launch(open_mpi) == Launch(5, 8, 1, 4)
