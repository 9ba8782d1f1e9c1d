"""How an exchange waits, and how it gives up."""

import time

import pytest
import torch
from moe_comm.transport.exchange import PeerLostError, WaitLoop
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.torch_dist import open_torch_exchange


class LonelyExchange(LocalExchange):
    """Rank 0 of a bring-up of two whose other rank died right after it."""

    @property
    def size(self) -> int:
        return 2


def test_what_is_done_needs_no_patience() -> None:
    WaitLoop(0.0, lambda: True).until(lambda: True, "nothing")


def test_waits_until_it_is_done() -> None:
    end = time.monotonic() + 0.05
    WaitLoop(10.0, lambda: False).until(lambda: time.monotonic() > end, "the clock")
    assert time.monotonic() > end


def test_a_deadline_says_what_was_waited_for_and_how_long() -> None:
    with pytest.raises(
        PeerLostError, match=r"no answer after 0\.\d s of waiting for rows .*0\.1 s"
    ):
        WaitLoop(0.1, lambda: False).until(lambda: False, "rows")


def test_the_control_flag_ends_a_wait_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(PeerLostError, match=r"told to stop after 0\.0"):
        WaitLoop(60.0, lambda: True).until(lambda: False, "rows")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_group_whose_ranks_do_not_come_is_given_up() -> None:
    with pytest.raises(PeerLostError, match=r"no gloo group of 2 ranks within 0\.1 s"):
        open_torch_exchange(
            LonelyExchange(), "127.0.0.1", "gloo", torch.device("cpu"), 0.1, lambda: False
        )
