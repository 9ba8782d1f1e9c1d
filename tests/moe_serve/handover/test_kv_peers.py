"""An end that others call is lost, and is there again at another address."""

import time
from collections.abc import Callable

from kv_ends import PATIENT, SECRET, ends, hello
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.hello import Hello

from moe_serve.step.kv_peers import KvPeers, KvWay

EARLY = hello("early:1", receives=())
FRONT = hello("front:0", sends=())


def way_to(endpoint: KvEndpoint) -> KvWay:
    return KvWay(f"127.0.0.1:{endpoint.port}")


def again(declared: Hello) -> KvEndpoint:
    return KvEndpoint(declared, SECRET, limits=PATIENT)


def turn(endpoint: KvEndpoint, peers: KvPeers, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        for event in endpoint.poll():
            peers.take(event)
        peers.call_again()
        time.sleep(0.002)


def test_it_calls_itself_first_and_is_called_there_from_then_on() -> None:
    with ends(EARLY, FRONT, limits=PATIENT) as (early, front):
        peers = KvPeers(early.endpoint, {"front:0": way_to(front.endpoint)})
        peers.meet(["front:0"], 5.0)
        front.endpoint.close()
        turn(early.endpoint, peers, lambda: not peers.is_ready("front:0"))
        returned = again(FRONT)
        own = KvPeers(returned, {"early:1": way_to(early.endpoint)})
        own.meet(["early:1"], 5.0)
        turn(early.endpoint, peers, lambda: peers.is_ready("front:0"))
        links = returned._hub._links
        first = links["early:1"]
        peers.readdress("front:0", way_to(returned))
        # What works is not called again; what is cut is.
        time.sleep(0.3)
        turn(early.endpoint, peers, lambda: links["early:1"] is first)
        first.cut()
        turn(early.endpoint, peers, lambda: links.get("early:1", first) is not first)
        turn(early.endpoint, peers, lambda: peers.is_ready("front:0"))
        returned.close()


def test_one_that_was_lost_from_the_beginning_is_called_once_it_is_known() -> None:
    now = 0.0
    with ends(EARLY, FRONT, limits=PATIENT) as (early, front):
        peers = KvPeers(early.endpoint, {}, now=lambda: now)
        peers.readdress("front:0", way_to(front.endpoint))
        peers.call_again()
        time.sleep(0.3)
        assert not early.endpoint.poll(), "it was to call first itself"
        now = 10.0
        turn(early.endpoint, peers, lambda: peers.is_ready("front:0"))
