"""Small records of expert load."""

import numpy as np
import pytest
from moe_placement.load.trace import ExpertLoad


@pytest.fixture
def small_load() -> ExpertLoad:
    """Two windows of two layers of four experts."""
    return ExpertLoad(
        model="small",
        layers=(1, 3),
        counts_TLE=np.array([[[8, 4, 2, 2], [1, 1, 1, 1]], [[0, 0, 0, 0], [1, 1, 9, 1]]]),
        steps_per_window=10,
    )
