"""Configs of real models, and plans over pools, for the placement tests."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from moe_placement.plan import PoolPlan, Role

MakePool = Callable[..., PoolPlan]


@pytest.fixture
def shipped_config() -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        text = (files("moe_placement") / "data" / name / "config.json").read_text("utf-8")
        config: dict[str, Any] = json.loads(text)
        return config

    return read


@pytest.fixture
def make_pool() -> MakePool:
    def make(
        first: int, last: int, role: Role = "both", weight_format: str = "bfloat16"
    ) -> PoolPlan:
        ranks = tuple(range(first, last + 1))
        return PoolPlan(f"pool{first}", "cpu", ranks, role, weight_format)

    return make
