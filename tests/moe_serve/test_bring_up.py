"""Those who met meet again when one is lost: the others wait for one that loads for long."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.world import World
from thread_worlds import STEP_SECONDS, Worlds, close

from moe_serve import bring_up
from moe_serve.bring_up import Meeting
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import LaunchedWorld

SHORT_SECONDS = 0.5
LOADING_SECONDS = 3 * SHORT_SECONDS


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    with ExitStack() as stack:
        yield Worlds(stack)


def load_what_is_lost(world: World) -> Meeting:
    everybody = world.open_exchange(world.ranks, STEP_SECONDS, lambda: False)
    meeting = Meeting(LaunchedWorld(world.plan_rank, world.size), world, everybody, world.ranks)
    meeting.follow_peers(bytes)
    with pytest.raises(PeerLostError):
        while True:
            meeting.exchange.barrier()
            time.sleep(0.01)
    record = meeting.leave_lost_behind()
    assert record.lost == {2}
    meeting.meet_again()
    # The checkpoint may be on a slow disk; who has nothing to load waits for the other.
    seconds = LOADING_SECONDS if world.plan_rank else 0.0
    together(meeting.exchange, partial(time.sleep, seconds))
    return meeting


@pytest.mark.slow
def test_loading_may_take_as_long_as_at_the_start(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_STEP_SECONDS", "_PARTING_SECONDS"):
        monkeypatch.setattr(bring_up, name, SHORT_SECONDS)
    first, second, last = worlds.worlds
    lost = worlds.submit(serve_until_lost, last)
    loading = [worlds.submit(load_what_is_lost, world) for world in (first, second)]
    time.sleep(SHORT_SECONDS)
    worlds.link.cut()
    for each in loading:
        assert each.result(STEP_SECONDS).ranks == (0, 1)
    lost.result(STEP_SECONDS)
    close(first, second, last)


def serve_until_lost(world: World) -> None:
    everybody = world.open_exchange(world.ranks, STEP_SECONDS, lambda: False)
    world.follow_peers(everybody, bytes)
    with pytest.raises(PeerLostError):
        while True:
            everybody.barrier()
    with pytest.raises(PeerLostError, match="as lost"):
        world.leave_lost_behind()
