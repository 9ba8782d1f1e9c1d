"""What the bridge adds to a layer: rows over the slowest link, there and then back."""

import numpy as np
import pytest
from moe_placement.solver.workers.bridge import Bridge

OUTWARD, RETURN, LATENCY, RATE = 2.0, 4.0, 0.5, 8.0


def bridge() -> Bridge:
    return Bridge(
        outward_bytes=OUTWARD,
        return_bytes=RETURN,
        chosen=1,
        devices_P=np.ones(2),
        inner_P=np.full(2, np.inf),
        seconds_per_byte_PP=np.array([[0, 1 / RATE], [1 / RATE, 0]]),
        latency=LATENCY,
    )


@pytest.mark.parametrize("tokens_P", [[100.0, 0.0], [0.0, 100.0], [100.0, 100.0], [100.0, 30.0]])
def test_rows_return_once_all_have_crossed(tokens_P: list[float]) -> None:
    """Links carry both directions at once: the larger one counts, there and back."""
    mass_LP = np.array([[0.5, 0.5], [0.5, 0.5]])
    seconds_L = bridge().layer_seconds(np.array(tokens_P), mass_LP)
    crossing = max(tokens_P) * 0.5
    expected = crossing * OUTWARD / RATE + crossing * RETURN / RATE + 2 * LATENCY
    assert seconds_L.tolist() == pytest.approx([expected] * 2)


def test_no_rows_need_only_the_latency() -> None:
    seconds_L = bridge().layer_seconds(np.array([10.0, 0.0]), np.array([[1.0, 0.0]]))
    assert seconds_L.tolist() == [2 * LATENCY]
