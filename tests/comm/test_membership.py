"""What members say when they do not agree."""

from dataclasses import replace

import pytest
from moe_comm.launch import Launch, read_launch
from moe_comm.membership import Member, Membership, disagreement, encode_member, membership


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
