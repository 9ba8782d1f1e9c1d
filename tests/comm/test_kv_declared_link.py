"""What a caller says of the way to a peer: the type of numbers, and a link only declared."""

import time

import pytest
from kv_ends import End, ends, hello, meet, random_parts
from moe_comm.kv.block import parts_bytes
from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.events import Accepted, Completed, Offered, PeerLost, PeerReady, PeerRefused
from moe_comm.kv.limits import KvLimits

NUM_TOKENS = 10


def transfer(sender: End, receiver: End) -> float:
    """Two layers of a prompt -> seconds until they have landed."""
    sender.endpoint.offer("r", NUM_TOKENS, ["b"])
    receiver.wait(Offered)
    receiver.endpoint.accept("r", 0)
    sender.wait(Accepted)
    begun = time.monotonic()
    for layer in (0, 1):
        parts = random_parts(hello("a").layers[0], NUM_TOKENS)
        assert sender.endpoint.send("r", layer, 0, parts)
    receiver.wait(Completed)
    return time.monotonic() - begun


def test_the_caller_chooses_the_type() -> None:
    with ends(hello("a"), hello("b"), hello("c", receives=("float32",))) as (
        sender,
        receiver,
        other,
    ):
        sender.endpoint.connect(f"127.0.0.1:{receiver.endpoint.port}", wire_type="int8")
        for end, direction in ((sender, "sending"), (receiver, "receiving")):
            ready = end.wait(PeerReady)
            assert getattr(ready, direction).wire_type == "int8"
        address = f"127.0.0.1:{other.endpoint.port}"
        sender.endpoint.connect(address, wire_type="int8")
        refused = sender.wait(PeerRefused)
        assert isinstance(refused, PeerRefused) and refused.address == address
        assert "a sends int8, c receives float32: no number type in common" in refused.reason


def test_blocks_arrive_no_sooner_than_a_declared_link_would_have_brought_them() -> None:
    """Pings go on, however long a block takes."""
    limits = KvLimits(silence_seconds=0.4, idle_seconds=5.0)
    num_bytes = 2 * parts_bytes(random_parts(hello("a").layers[0], NUM_TOKENS))
    link = DeclaredLink(bandwidth=num_bytes, latency=0.1)
    with ends(hello("a"), hello("b"), limits=limits) as (sender, receiver):
        address = f"127.0.0.1:{receiver.endpoint.port}"
        sender.endpoint.connect(address, declared=link)
        sender.wait(PeerReady)
        receiver.wait(PeerReady)
        assert 1.1 < transfer(sender, receiver) < 2.2
        assert not any(isinstance(event, PeerLost) for event in sender.told + receiver.told)


def test_without_a_declaration_blocks_leave_at_once() -> None:
    with ends(hello("a"), hello("b")) as (sender, receiver):
        meet(sender, receiver)
        assert transfer(sender, receiver) < 0.5


def test_connections_share_a_declared_link_one_block_after_the_other() -> None:
    link = DeclaredLink(bandwidth=100.0, latency=0.5)
    assert link.arrival(10.0, 200) == 12.5
    # The first one occupies the link until 12; its latency keeps nobody waiting.
    assert link.arrival(10.0, 100) == 13.5
    assert link.arrival(20.0, 100) == pytest.approx(21.5)
