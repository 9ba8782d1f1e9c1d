"""Transfers between endpoints over real sockets: order, limits, refusals, deadlines, failures."""

import select
import socket
import threading
import time

import numpy as np
import pytest
from kv_ends import QUICK, End, ends, hello, hellos, meet, pair, random_parts, until
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import (
    Accepted,
    Completed,
    Delivered,
    Landed,
    Offered,
    OfferFailed,
    PeerLost,
    PeerReady,
    PeerRefused,
    ReceiveFailed,
    SendFailed,
)
from moe_comm.kv.limits import KvLimits


def start(sender: End, receiver: End, num_tokens: int, first_token: int = 0) -> Accepted:
    sender.endpoint.offer("r", num_tokens, ["b"])
    assert receiver.wait(Offered) == Offered("r", num_tokens, ("a",), 1)
    receiver.endpoint.accept("r", first_token)
    accepted = sender.wait(Accepted)
    assert isinstance(accepted, Accepted)
    return accepted


def test_chunks_land_layer_by_layer_and_a_prefix_is_not_sent() -> None:
    declared = hello("a")
    parts = random_parts(declared.layers[0], 10)
    with pair(declared, hello("b")) as (sender, receiver):
        assert start(sender, receiver, 10, first_token=6) == Accepted("r", 6)
        for first, end in ((0, 4), (4, 8), (8, 10)):
            for layer in (0, 1):
                chunk = parts[0][first:end], parts[1][first:end]
                assert sender.endpoint.send("r", layer, first, chunk)
        assert receiver.wait(Completed) == Completed("r")
        assert sender.wait(Delivered) == Delivered("r")
        assert [(each.layer, each.first_token) for each in receiver.landed()] == [
            (0, 6),
            (1, 6),
            (0, 8),
            (1, 8),
        ]
        for layer in (0, 1):
            keys = [each.parts[0] for each in receiver.landed() if each.layer == layer]
            assert np.array_equal(np.concatenate(keys), parts[0][6:])


def test_a_prompt_that_is_cached_whole_costs_no_block() -> None:
    with pair(hello("a"), hello("b")) as (sender, receiver):
        start(sender, receiver, 10, first_token=10)
        sender.wait(Delivered)
        receiver.wait(Completed)
        assert receiver.landed() == []


@pytest.mark.parametrize(("num_senders", "num_receivers"), [(2, 1), (1, 2), (2, 2)])
def test_heads_find_their_ranks(num_senders: int, num_receivers: int) -> None:
    sending, receiving = hellos("a", "gqa", num_senders), hellos("b", "gqa", num_receivers)
    whole = random_parts(hello("all").layers[0], 5)
    with ends(*sending, *receiving) as both:
        senders, receivers = both[:num_senders], both[num_senders:]
        peers: dict[int, list[str]] = {index: [] for index in range(num_senders)}
        for index, declared in enumerate(sending):
            for other, end in zip(receiving, receivers, strict=True):
                if declared.cells & other.cells:
                    meet(senders[index], end)
                    peers[index].append(other.name)
        for index, end in enumerate(senders):
            end.endpoint.offer("r", 5, peers[index])
        for end in receivers:
            end.wait(Offered)
            end.endpoint.accept("r", 0)
        for index, end in enumerate(senders):
            end.wait(Accepted)
            heads = slice(sending[index].layers[0].first_head, sending[index].layers[0].end_head)
            for layer in (0, 1):
                assert end.endpoint.send("r", layer, 0, (whole[0][:, heads], whole[1][:, heads]))
        for index, end in enumerate(receivers):
            end.wait(Completed)
            first = receiving[index].layers[0].first_head
            for each in end.landed():
                start = first + each.first_head
                heads = slice(start, start + each.parts[0].shape[1])
                assert np.array_equal(each.parts[1], whole[1][:, heads])
            assert sum(each.parts[0].size for each in end.landed()) * num_receivers == (
                2 * whole[0].size
            )
        for end in senders:
            end.wait(Delivered)


def test_refusals_and_withdrawals_reach_the_other_end() -> None:
    with pair(hello("a"), hello("b")) as (sender, receiver):
        sender.endpoint.offer("r", 3, ["b"])
        receiver.wait(Offered)
        receiver.endpoint.refuse("r", "no pages")
        assert sender.wait(SendFailed) == SendFailed("r", "b refused: no pages")
        assert receiver.wait(ReceiveFailed) == ReceiveFailed("r", "no pages")
        sender.endpoint.offer("r", 3, ["b"])
        receiver.wait(Offered)
        sender.endpoint.withdraw("r", "aborted")
        assert receiver.wait(ReceiveFailed) == ReceiveFailed("r", "a withdrew it: aborted")
        assert sender.wait(SendFailed) == SendFailed("r", "aborted")
        sender.endpoint.offer("r", 3, ["nobody"])
        assert sender.wait(SendFailed) == SendFailed("r", "nobody is not connected")


def test_misuse_is_an_error_at_once() -> None:
    declared = hello("a")
    parts = random_parts(declared.layers[0], 4)
    with pair(declared, hello("b")) as (sender, receiver):
        with pytest.raises(ValueError, match="not offered"):
            receiver.endpoint.accept("r", 0)
        with pytest.raises(ValueError, match="not offered"):
            sender.endpoint.send("r", 0, 0, parts)
        sender.endpoint.offer("r", 8, ["b"])
        with pytest.raises(ValueError, match="cannot be offered"):
            sender.endpoint.offer("r", 8, ["b"])
        with pytest.raises(ValueError, match="not accepted"):
            sender.endpoint.send("r", 0, 0, parts)
        receiver.wait(Offered)
        with pytest.raises(ValueError, match="first_token=9"):
            receiver.endpoint.accept("r", 9)
        receiver.endpoint.accept("r", 0)
        sender.wait(Accepted)
        with pytest.raises(ValueError, match="tokens 1 to before 5 of 8 cannot be sent when 0"):
            sender.endpoint.send("r", 0, 1, parts)
        assert sender.endpoint.send("r", 0, 0, parts)
        with pytest.raises(ValueError, match="tokens 5 to before 9 of 8"):
            sender.endpoint.send("r", 0, 5, parts)
        with pytest.raises(ValueError, match="parts of shape"):
            sender.endpoint.send("r", 1, 0, (parts[0], parts[0]))
        with pytest.raises(ValueError, match="float32"):
            sender.endpoint.send("r", 1, 0, (parts[0].astype(float), parts[1]))


def test_both_ends_bound_what_waits() -> None:
    """A receiver that does not poll stops the sender; when it polls, all goes on."""
    declared = hello("a", sends=("float32",))
    num_tokens = 12_000
    big = random_parts(declared.layers[0], num_tokens)
    num_bytes = big[0].nbytes + big[1].nbytes
    limits = KvLimits(silence_seconds=0.4, bytes_in_flight=200_000)
    with pair(declared, hello("b"), limits) as (sender, receiver):
        start(sender, receiver, 100 * num_tokens)
        num_taken, stalled = 0, time.monotonic()
        while time.monotonic() - stalled < 0.5:  # longer than the limit on silence
            chunk = big[0], big[1]
            if sender.endpoint.send("r", 0, num_taken * num_tokens, chunk):
                num_taken, stalled = num_taken + 1, time.monotonic()
            time.sleep(0.002)
        # What the kernel holds of a connection varies; the rest is a few blocks.
        assert 1 < num_taken * num_bytes < 40_000_000
        assert sender.endpoint.poll() == []
        until(lambda: drained(receiver) == num_taken)
        assert sender.endpoint.send("r", 0, num_taken * num_tokens, big)


def drained(receiver: End) -> int:
    receiver.told += receiver.endpoint.poll()
    return len(receiver.landed())


def test_an_idle_transfer_fails_although_its_peer_is_alive() -> None:
    with pair(hello("a"), hello("b"), KvLimits(silence_seconds=5.0, idle_seconds=0.5)) as (
        sender,
        receiver,
    ):
        begun = time.monotonic()
        start(sender, receiver, 3)
        failed = sender.wait(SendFailed)
        assert isinstance(failed, SendFailed) and "0.5 s" in failed.reason
        assert 0.4 < time.monotonic() - begun < 3
        receiver.wait(ReceiveFailed)
        assert not any(isinstance(each, PeerLost) for each in sender.told + receiver.told)


def test_a_peer_that_comes_anew_takes_its_own_place() -> None:
    with ends(hello("a"), hello("b"), hello("a")) as (first, receiver, second):
        meet(first, receiver)
        first.endpoint.offer("r", 3, ["b"])
        receiver.wait(Offered)
        second.endpoint.connect(f"127.0.0.1:{receiver.endpoint.port}")
        assert receiver.wait(ReceiveFailed) == ReceiveFailed("r", "a was lost: it connected anew")
        assert first.wait(PeerLost) and first.wait(SendFailed)
        second.wait(PeerReady)
        second.endpoint.offer("r", 3, ["b"])
        assert receiver.wait(Offered) == Offered("r", 3, ("a",), 2)


def test_ends_that_cannot_agree_or_do_not_trust() -> None:
    with ends(hello("a"), hello("b", model_name="other")) as (first, second):
        first.endpoint.connect(f"127.0.0.1:{second.endpoint.port}")
        for end in (first, second):
            refused = end.wait(PeerRefused)
            assert isinstance(refused, PeerRefused) and "different models" in refused.reason
        stranger = End(KvEndpoint(hello("c"), b"another", limits=QUICK))
        try:
            stranger.endpoint.connect(f"127.0.0.1:{second.endpoint.port}")
            for end in (stranger, second):
                refused = end.wait(PeerRefused)
                assert isinstance(refused, PeerRefused)
                assert refused.reason == "it does not hold the same secret"
        finally:
            stranger.endpoint.close()


def test_who_says_nothing_is_dropped_at_either_end() -> None:
    with (
        ends(hello("a"), limits=QUICK) as (end,),
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_connection(("127.0.0.1", end.endpoint.port)) as stranger,
    ):
        called = f"127.0.0.1:{silent.getsockname()[1]}"
        caller = f"127.0.0.1:{stranger.getsockname()[1]}"
        end.endpoint.connect(called)
        refused = {end.wait(PeerRefused), end.wait(PeerRefused)}
        reason = "nothing was heard of it for 0.5 s"
        assert refused == {PeerRefused(called, reason), PeerRefused(caller, reason)}
        stranger.settimeout(2)
        while stranger.recv(4096):
            pass


def test_waiting_events_make_the_descriptor_readable() -> None:
    with pair(hello("a"), hello("b")) as (sender, receiver):
        assert not select.select([receiver.endpoint], [], [], 0)[0]
        sender.endpoint.offer("r", 3, ["b"])
        assert select.select([receiver.endpoint], [], [], 2)[0]
        receiver.wait(Offered)
        assert not select.select([receiver.endpoint], [], [], 0)[0]


def test_a_closed_endpoint_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with pair(hello("a"), hello("b")) as (sender, receiver):
        start(sender, receiver, 3)
        sender.endpoint.close()
        failed = receiver.wait(ReceiveFailed, 1)
        assert isinstance(failed, ReceiveFailed) and "a was lost" in failed.reason
        assert not any(isinstance(event, Landed) for event in receiver.told)
    assert threading.active_count() == before


def test_who_waits_for_the_rest_of_an_offer_hears_that_it_failed() -> None:
    (receiving,) = hellos("b", "gqa", 1)
    with ends(*hellos("a", "gqa", 2), receiving) as (first, second, receiver):
        meet(first, receiver)
        meet(second, receiver)
        first.endpoint.offer("r", 3, ["b:0"])
        first.endpoint.withdraw("r", "no pages")
        assert receiver.wait(OfferFailed) == OfferFailed("r", "a:0 withdrew it: no pages")
        # Both once more.
        first.wait(SendFailed)
        for end in (first, second):
            end.endpoint.offer("r", 3, ["b:0"])
        assert receiver.wait(Offered) == Offered("r", 3, ("a:0", "a:1"), 1)


def test_a_receiver_that_comes_later_hears_what_was_in_vain() -> None:
    """It may have thought itself connected, and would wait for the offer."""
    with ends(hello("a"), hello("b"), limits=KvLimits(idle_seconds=1.0)) as (sender, receiver):
        sender.endpoint.offer("r", 3, ["b"])
        assert sender.wait(SendFailed) == SendFailed("r", "b is not connected")
        meet(sender, receiver)
        assert receiver.wait(ReceiveFailed) == ReceiveFailed(
            "r", "a withdrew it: b is not connected"
        )
        # The next one is offered as if nothing had been.
        receiver.told.clear()
        sender.endpoint.offer("r", 3, ["b"])
        assert receiver.wait(Offered) == Offered("r", 3, ("a",), 2)


def test_a_receiver_that_was_lost_hears_it_when_it_is_back() -> None:
    with ends(hello("a"), hello("b"), hello("b")) as (sender, first, second):
        meet(sender, first)
        sender.endpoint.offer("r", 3, ["b"])
        first.wait(Offered)
        first.endpoint.close()
        sender.wait(SendFailed)
        meet(sender, second)
        failed = second.wait(ReceiveFailed)
        assert isinstance(failed, ReceiveFailed) and "b was lost" in failed.reason


def test_of_several_receivers_those_that_are_there_hear_of_the_one_that_is_not() -> None:
    (sending,), receiving = hellos("a", "gqa", 1), hellos("b", "gqa", 2)
    with ends(sending, *receiving) as (sender, first, second):
        meet(sender, first)
        sender.endpoint.offer("r", 3, ["b:0", "b:1"])
        for end in (first, second):
            if end is second:
                meet(sender, end)
            failed = end.wait(ReceiveFailed)
            assert failed == ReceiveFailed("r", "a:0 withdrew it: b:1 is not connected")


def test_what_was_in_vain_long_ago_is_told_nobody() -> None:
    with ends(hello("a"), hello("b"), limits=QUICK) as (sender, receiver):
        sender.endpoint.offer("r", 3, ["b"])
        sender.wait(SendFailed)
        time.sleep(1.0)
        meet(sender, receiver)
        time.sleep(0.3)
        assert receiver.endpoint.poll() == []
