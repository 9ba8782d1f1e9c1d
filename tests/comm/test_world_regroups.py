"""Worlds of three mpiruns that lose a link, and one of them that comes back busy."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.lifeline import Record
from thread_worlds import (
    SILENT_SECONDS,
    STEP_SECONDS,
    Worlds,
    close,
    come_back_busy,
    meet,
    serve,
)


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    with ExitStack() as stack:
        yield Worlds(stack)


def test_a_cut_link_between_two_others_is_missed_in_time(worlds: Worlds) -> None:
    serving = [worlds.submit(serve, world) for world in worlds.worlds]
    time.sleep(1.5 * SILENT_SECONDS)
    assert not any(each.done() for each in serving)
    started = time.monotonic()
    worlds.link.cut()
    record = Record(1, frozenset({2}))
    assert [each.result(STEP_SECONDS) for each in serving[:2]] == [record] * 2
    assert time.monotonic() - started < SILENT_SECONDS + 2.0
    with pytest.raises(PeerLostError, match="counts this rank's mpirun as lost"):
        serving[2].result(STEP_SECONDS)
    meeting = [worlds.submit(meet, world) for world in worlds.worlds[:2]]
    assert [each.result(STEP_SECONDS) for each in meeting] == [record] * 2
    worlds.worlds[2].close()
    close(*worlds.worlds[:2])


@pytest.mark.slow
def test_one_that_comes_back_busy_is_waited_for(worlds: Worlds) -> None:
    """It calls later than the others look for it, and listens elsewhere than before."""
    first, second, last = worlds.worlds
    serving = [worlds.submit(serve, world) for world in (first, second, last)]
    time.sleep(0.5)
    worlds.link.cut()
    assert [each.result(STEP_SECONDS).epoch for each in serving[:2]] == [1, 1]
    with pytest.raises(PeerLostError):
        serving[2].result(STEP_SECONDS)
    last.close()
    worlds.link.mend()
    serving = [worlds.submit(serve, world) for world in (first, second)]
    again = worlds.start_again()
    returning = worlds.submit(come_back_busy, again)
    assert [each.result(STEP_SECONDS).epoch for each in serving] == [2, 2]
    meeting = [worlds.submit(meet, world) for world in (first, second)]
    for each in (*meeting, returning):
        record = each.result(STEP_SECONDS)
        assert (record.epoch, record.lost) == (2, frozenset())
    close(first, second, again)
