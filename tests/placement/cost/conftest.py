"""Models, devices and a step model of them."""

from collections.abc import Callable
from typing import Any

import pytest
from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.step_model import StepModel
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.device import DeviceSpec
from moe_placement.model.catalogue import find_model
from moe_placement.model.spec import ModelSpec

MakeModel = Callable[..., StepModel]


@pytest.fixture(scope="session")
def qwen() -> ModelSpec:
    return find_model("Qwen/Qwen3-30B-A3B")


@pytest.fixture(scope="session")
def deepseek() -> ModelSpec:
    return find_model("deepseek-ai/DeepSeek-V3")


@pytest.fixture(scope="session")
def hopper() -> DeviceSpec:
    return find_device("h200_sxm")


@pytest.fixture(scope="session")
def blackwell() -> DeviceSpec:
    return find_device("b200_sxm")


@pytest.fixture(scope="session")
def make_model(qwen: ModelSpec, hopper: DeviceSpec) -> MakeModel:
    """A step model of Qwen3-30B-A3B at the physical priors, with what the test changes."""

    def make(**changes: Any) -> StepModel:
        degrees = {"tensor_parallel": 4, "expert_parallel": 4}
        settings: dict[str, Any] = {
            "spec": qwen,
            "device": hopper,
            "parallelism": Parallelism(**degrees),
            "weight_format": "fp8",
            "kv_format": "bfloat16",
            "coefficients": Coefficients(),
            "engine": "vllm",
        }
        return StepModel(**{**settings, **changes})

    return make
