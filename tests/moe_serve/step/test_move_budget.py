"""How much is loaded beside one step, by a clock that tells what it is set to."""

from collections.abc import Iterator

import pytest

from moe_serve.step.move_budget import MoveBudget, MoveLimits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def pieces(self, num: int, num_bytes: int, seconds: float) -> Iterator[int]:
        """Pieces that each take so long."""
        for _ in range(num):
            self.now += seconds
            yield num_bytes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("moe_serve.step.move_budget.time.perf_counter", lambda: clock.now)
    return clock


def budget_of(bytes_per_step: int) -> MoveBudget:
    return MoveBudget(MoveLimits(bytes_per_step=bytes_per_step, expert_bytes=1, room=0))


def calls(clock: Clock, budget: MoveBudget, pieces: Iterator[int], step: float) -> int:
    """Steps of so many seconds until all is done."""
    for number in range(1, 1000):
        clock.now += step
        if budget.spend(pieces):
            return number
    raise AssertionError("it never ends")


def test_bytes_beyond_a_step_are_taken_from_the_next(clock: Clock) -> None:
    """Pieces of 25 with 10 a step: one piece, then two steps without."""
    budget = budget_of(10)
    assert calls(clock, budget, clock.pieces(4, 25, 0.0), step=1.0) == 1 + 3 * 2 + 3 + 1


def test_no_more_than_a_tenth_of_the_time_is_spent(clock: Clock) -> None:
    """Ten pieces of 5 ms fit beside 100 ms two at a time, though bytes would do in one step."""
    budget = budget_of(1 << 30)
    assert calls(clock, budget, clock.pieces(10, 1, 0.005), step=0.0999) == 5 + 1
    assert budget.seconds == pytest.approx(0.05)


def test_a_piece_that_is_too_long_is_done_all_the_same(clock: Clock) -> None:
    budget = budget_of(1 << 30)
    assert calls(clock, budget, clock.pieces(3, 1, 7.0), step=0.1) == 3 + 1


def test_where_there_are_no_steps_pieces_go_on_for_a_while(clock: Clock) -> None:
    budget = budget_of(1 << 30)
    assert calls(clock, budget, clock.pieces(20, 1, 0.000101), step=0.0) == 3


def test_an_error_of_a_piece_is_passed_on_and_its_time_counted(clock: Clock) -> None:
    def failing() -> Iterator[int]:
        clock.now += 2.0
        raise OSError("gone")
        yield 1

    budget = budget_of(1)
    with pytest.raises(OSError, match="gone"):
        budget.spend(failing())
    assert budget.seconds == pytest.approx(2.0)
