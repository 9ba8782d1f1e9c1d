"""Which waiting inputs are encoded together."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.encoders.waiting import WaitingInputs


def waiting(lengths: Sequence[int]) -> WaitingInputs:
    inputs = WaitingInputs()
    for index, length in enumerate(lengths):
        inputs.add(str(index), length)
    return inputs


def within(budget: int) -> object:
    return lambda num_inputs, length: num_inputs * length <= budget


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_all_are_taken_oldest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    inputs = waiting(lengths)
    left = dict(enumerate(lengths))
    while left:
        batch = [int(name) for name in inputs.take(within(budget))]
        assert min(left) in batch
        taken = [left.pop(index) for index in batch]
        padded = len(taken) * max(taken)
        assert padded <= budget or len(taken) == 1
        assert taken == sorted(taken)
        assert padded - sum(taken) <= max(padded / 4, 16)
        assert len(inputs) == len(left)
    assert inputs.take(within(budget)) == []


@given(LENGTHS, st.data())
def test_removed_inputs_are_gone(lengths: list[int], data: st.DataObject) -> None:
    inputs = waiting(lengths)
    removed = data.draw(st.sets(st.sampled_from(range(len(lengths)))))
    for index in removed:
        inputs.remove(str(index))
    taken = set()
    while batch := inputs.take(within(64)):
        taken |= set(batch)
    assert taken == {str(index) for index in range(len(lengths)) if index not in removed}


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([50, 3, 48, 2, 50, 4], [["2", "0", "4"], ["3", "1", "5"]]),
        ([10] * 7, [["0", "1", "2", "3", "4"], ["5", "6"]]),
        ([200, 7], [["0"], ["1"]]),
    ],
)
def test_like_goes_with_like(lengths: list[int], batches: list[list[str]]) -> None:
    inputs = waiting(lengths)
    budget = within(150 if lengths[0] == 50 else 50)
    assert [inputs.take(budget) for _ in batches] == batches
