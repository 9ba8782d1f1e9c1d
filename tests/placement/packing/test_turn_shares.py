"""Shares of a device as shares of the time of those of its processors that are left."""

import pytest
from moe_placement.packing.turn_shares import KeptProcessors


def test_who_takes_turns_on_half_the_processors_has_twice_its_share_of_their_time() -> None:
    kept = KeptProcessors()
    kept.keep(5, 0, 0.5)
    assert kept.turn_shares([(0, 0.5)]) == [1.0]
    assert kept.turn_shares([(0, 0.1), (1, 0.7), (None, 0.3)]) == [0.2, 0.7, 0.6]


def test_nothing_changes_where_nobody_keeps_any() -> None:
    asked = [(0, 0.3), (None, 0.7)]
    assert KeptProcessors().turn_shares(asked) == [0.3, 0.7]


def test_a_gang_goes_by_the_rank_that_has_least_left() -> None:
    kept = KeptProcessors()
    kept.keep(5, 0, 0.2)
    kept.keep(6, 1, 0.3)
    kept.keep(7, 1, 0.3)
    assert kept.turn_shares([(None, 0.2), (0, 0.4)]) == pytest.approx([0.5, 0.5])


def test_what_was_kept_by_one_that_has_gone_is_promised_anew_and_not_there() -> None:
    kept = KeptProcessors()
    kept.keep(5, 0, 0.5)
    assert kept.turn_shares([(0, 0.5), (0, 0.5)]) == [0.5, 0.5]
    assert kept.turn_shares([(0, 0.45), (0, 0.3)]) == pytest.approx([0.6, 0.4])
