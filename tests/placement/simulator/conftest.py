"""Timers whose steps can be worked out by hand, and requests for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.scheduler import SchedulerLimits, SimulatedRequest


@dataclass(frozen=True)
class LinearTimer:
    """Remembers the shapes that it was asked about."""

    fixed: float = 0.01
    per_token: float = 0.0
    per_sequence: float = 0.0
    shapes: list[StepShape] = field(default_factory=list, compare=False)

    def seconds(self, shape: StepShape) -> float:
        self.shapes.append(shape)
        prefill, decoding = shape.prefill_tokens, shape.decode_sequences
        return self.fixed + self.per_token * prefill + self.per_sequence * decoding


@pytest.fixture
def make_timer() -> Callable[..., LinearTimer]:
    return LinearTimer


@pytest.fixture
def make_limits() -> Callable[..., SchedulerLimits]:
    def make(**changes: Any) -> SchedulerLimits:
        values = {"num_pages": 1000, "page_size": 16, "max_tokens_per_step": 512}
        return SchedulerLimits(**{**values, **changes})

    return make


@pytest.fixture
def make_requests() -> Callable[..., list[SimulatedRequest]]:
    """Like requests, numbered from 0, `gap` seconds apart."""

    def make(
        num_requests: int, prompt: int = 100, output: int = 10, gap: float = 0.0, **more: Any
    ) -> list[SimulatedRequest]:
        return [
            SimulatedRequest(
                request_id=number,
                arrival=number * gap,
                prompt_tokens=prompt,
                output_tokens=output,
                **more,
            )
            for number in range(num_requests)
        ]

    return make
