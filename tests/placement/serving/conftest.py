"""A step timer of a few round numbers, and limits that never bind unless a test says so."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.workload import Workload


@dataclass(frozen=True)
class LinearTimer:
    """A fixed part, and seconds for each prompt token and each decoding sequence."""

    fixed: float = 10e-3
    prompt_token: float = 20e-6
    sequence: float = 0.1e-3

    def seconds(self, shape: StepShape) -> float:
        if not shape.num_tokens:
            return 0.0
        decoding = shape.decode_sequences * self.sequence
        fullest = shape.prefill_tokens * shape.prefill_imbalance
        return self.fixed + fullest * self.prompt_token + decoding


MakeWorkload = Callable[..., Workload]


@pytest.fixture
def timer() -> LinearTimer:
    return LinearTimer()


@pytest.fixture
def limits() -> ServingLimits:
    return ServingLimits()


@pytest.fixture
def make_workload() -> MakeWorkload:
    def make(**changes: float) -> Workload:
        return Workload(**{"prompt_tokens": 1000, "output_tokens": 501, **changes})  # type: ignore[arg-type]

    return make
