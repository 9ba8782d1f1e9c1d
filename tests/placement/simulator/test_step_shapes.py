"""From what schedulers form to what timers price."""

import numpy as np
import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.scheduler import PrefillChunk, Step
from moe_placement.simulator.shapes import heaviest, scaled, shape_of


def test_ranks_add_up_and_contexts_are_means() -> None:
    steps = [
        Step((PrefillChunk(0, 10, 0), PrefillChunk(1, 30, 100)), 2, 500),
        Step((), 3, 1000),
        Step(),
    ]
    assert shape_of(steps, decode_tokens=2) == StepShape(
        prefill_tokens=40,
        prefill_context=pytest.approx((sum(range(1, 11)) + sum(range(101, 131))) / 40),
        decode_sequences=5,
        decode_context=300.0,
        decode_tokens_per_sequence=2,
    )
    assert shape_of([]).num_tokens == 0


def test_a_part_of_a_step_keeps_its_contexts() -> None:
    shape = StepShape(40, 7.0, 6, 300.0, 2.0)
    assert scaled(shape, 0.5) == StepShape(20, 7.0, 3, 300.0, 2.0)


def seconds(shape: StepShape) -> float:
    """Grows, with a bend, in all four."""
    prefill, decoding = shape.prefill_tokens, shape.decode_sequences
    work = prefill * (1 + 0.001 * shape.prefill_context)
    return max(work, 50.0) + decoding**0.5 * 3 + decoding * shape.decode_context * 0.002


@pytest.mark.parametrize("seed", range(5))
def test_the_slowest_is_among_the_heaviest(seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [
        StepShape(*random.integers((0, 1, 0, 1), (300, 900, 64, 900)).astype(float).tolist())
        for _ in range(200)
    ]
    kept = heaviest(shapes)
    assert max(map(seconds, kept)) == max(map(seconds, shapes))
    assert len(kept) < 100


def test_of_equals_one_is_kept() -> None:
    one, less = StepShape(decode_sequences=4, decode_context=9.0), StepShape(decode_sequences=3)
    assert heaviest([less, one, one]) == [one]
