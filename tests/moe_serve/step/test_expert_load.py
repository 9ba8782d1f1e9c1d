"""Rows of experts, counted where the tokens are."""

import numpy as np
import torch

from moe_serve.messages import STEPS_PER_WINDOW, ExpertCounts
from moe_serve.step.expert_load import ExpertCounter


def counts_of(counts: ExpertCounts) -> list[list[int]]:
    return np.frombuffer(counts.counts_LE, "<i8").reshape(2, 4).tolist()


def test_every_choice_of_every_token_is_a_row_of_its_layer() -> None:
    counter = ExpertCounter((3, 5), 4)
    counter.count(5, torch.tensor([[0, 2], [2, 3]]))
    counter.count(3, torch.zeros(0, 2, dtype=torch.int64))
    counter.end_step()
    counter.count(3, torch.tensor([[1, 1]]))
    counter.end_step()
    taken = counter.take()
    assert taken is not None and taken.window == 0
    assert counts_of(taken) == [[0, 2, 0, 0], [1, 0, 2, 1]]
    assert counter.take() is None
    assert np.frombuffer(counter.totals, "<i8").sum() == 6


def test_a_window_ends_with_its_last_step() -> None:
    counter = ExpertCounter((3, 5), 4)
    for step in range(1, 2 * STEPS_PER_WINDOW + 1):
        counter.count(3, torch.tensor([[step % 4]]))
        counter.end_step()
        assert counter.is_window_over == (step in (STEPS_PER_WINDOW, 2 * STEPS_PER_WINDOW))
        if counter.is_window_over:
            taken = counter.take()
            assert taken is not None and taken.window == step // STEPS_PER_WINDOW - 1
            assert counts_of(taken) == [[STEPS_PER_WINDOW // 4] * 4, [0] * 4]


def test_a_step_that_is_broken_off_is_not_counted() -> None:
    counter = ExpertCounter((3, 5), 4)
    counter.count(3, torch.tensor([[0, 1]]))
    counter.count(5, torch.tensor([[2, 3]]))
    counter.end_step()
    for _ in range(2):
        # It gets no further than the first layer.
        counter.count(3, torch.tensor([[1, 1]]))
        counter.drop_step()
    counter.count(3, torch.tensor([[1, 2]]))
    counter.count(5, torch.tensor([[0, 0]]))
    counter.end_step()
    taken = counter.take()
    assert taken is not None
    assert counts_of(taken) == [[1, 2, 1, 0], [2, 0, 1, 1]]


def test_steps_of_many_tokens_are_counted_like_those_of_few() -> None:
    """And what waited of a step that is broken off is forgotten, as is what did not."""
    counter, generator = ExpertCounter(range(3), 8), torch.Generator().manual_seed(0)
    expected_LE = np.zeros((3, 8), np.int64)
    for num_tokens, layers, is_kept in (
        (50_000, (0, 1, 2), True),
        (50_000, (0, 1), False),
        (5, (0, 1), False),
        (5, (0, 1, 2), True),
    ):
        for layer in layers:
            ids_TK = torch.randint(8, (num_tokens, 2), generator=generator)
            counter.count(layer, ids_TK)
            if is_kept:
                expected_LE[layer] += torch.bincount(ids_TK.reshape(-1), minlength=8).numpy()
        if is_kept:
            counter.end_step()
        else:
            counter.drop_step()
    assert np.array_equal(np.frombuffer(counter.totals, "<i8").reshape(3, 8), expected_LE)
