"""No import of the house breaks its floors, and one that did would be seen."""

from pathlib import Path

import pytest
from floors import circles, find_faults, is_torch
from house_imports import Import, Source, arrows, package_of, read_imports, read_sources

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = {
    "moe_serve": ROOT,
    "moe_comm": ROOT / "comm",
    "moe_kernels": ROOT / "kernels",
    "moe_devices": ROOT / "devices",
    "moe_placement": ROOT / "placement",
}


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return read_sources(SOURCE_ROOTS)


def test_the_house_keeps_its_floors(sources: dict[str, Source]) -> None:
    imports = read_imports(sources)
    # Guards against a tree that was not found: what follows would hold of nothing.
    assert {package_of(module) for module in imports} == set(SOURCE_ROOTS)
    assert any(is_torch(target) for _, target in arrows(imports))
    assert ("moe_comm.dispatcher" in imports) and ("moe_placement.plan" in imports)
    assert find_faults(imports) == []


def test_init_files_are_empty() -> None:
    inits = [
        path
        for package, root in SOURCE_ROOTS.items()
        for path in (root / package).rglob("__init__.py")
    ]
    assert len(inits) >= len(SOURCE_ROOTS)
    assert [str(path.relative_to(ROOT)) for path in inits if path.read_bytes().strip()] == []


def plant(sources: dict[str, Source], module: str, line: str) -> list[str]:
    """The faults that one more line in one module, new or not, brings into the house."""
    before = set(find_faults(read_imports(sources)))
    text = sources[module].text if module in sources else ""
    planted = {**sources, module: Source(f"{text}\n{line}\n")}
    return [fault for fault in find_faults(read_imports(planted)) if fault not in before]


def test_a_sound_line_brings_no_fault(sources: dict[str, Source]) -> None:
    assert plant(sources, "moe_serve.config.tree", "import json") == []
    assert plant(sources, "moe_serve.planted", "import torch, moe_comm.dispatcher") == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("moe_devices.device", "import moe_comm.dispatcher", "moe_devices may not use moe_comm"),
        ("moe_kernels.ops", "from moe_devices import device", "may not use moe_devices"),
        ("moe_placement.plan", "def f():\n    import moe_kernels.ops", "may not use moe_kernels"),
        ("moe_comm.dispatcher", "import moe_placement.plan", "may not use moe_placement"),
        ("moe_comm.dispatcher", "from moe_serve.types import Batch", "may not use moe_serve"),
        ("moe_placement.plan", "import torch.nn", "the planner runs without torch"),
        ("moe_placement.plan", "def f():\n    from torch import nn", "runs without torch"),
        ("moe_placement.plan", "import torch_npu", "runs without torch"),
        (
            "moe_placement.plan",
            "import importlib\ndef f():\n    return importlib.import_module('torch')",
            "runs without torch",
        ),
        ("moe_placement.plan", "import moe_placement.model.spec", "plan may not use model"),
        (
            "moe_placement.hardware.device",
            "import moe_placement.solver.problem",
            "may not use solver",
        ),
        (
            "moe_serve.control.planning.planted",
            "from moe_serve.control.requests.router import Router",
            "planning may not use requests",
        ),
        ("moe_placement.solver.problem", "from time import monotonic", "no clock"),
        ("moe_serve.types", "import torch", "moe_serve.types must start without torch"),
        ("moe_serve.edge.planted", "from torch import Tensor", "must start without torch"),
        (
            "moe_serve.control.requests.client",
            "import moe_kernels.ops",
            "moe_serve.control.requests.client -> moe_kernels.ops -> torch",
        ),
        ("moe_serve.config.tree", "class A:\n    import torch", "must start without torch"),
        ("moe_serve.schedule.planted", "import moe_placement.plan", "types and errors only"),
        ("moe_serve.schedule.planted", "import moe_serve.config.tree", "may not use config"),
        ("moe_serve.edge.planted", "from ..layers import context", "edge may not use layers"),
        ("moe_serve.control.requests.client", "import moe_serve.edge", "control may not use edge"),
        ("moe_serve.layers.context", "from moe_serve import step", "layers may not use step"),
        ("moe_serve.layers.context", "from ..models import planted", "may not use models"),
        ("moe_serve.models.planted", "import moe_serve.step", "models may not use step"),
        ("moe_serve.step.planted", "import moe_serve.bench", "step may not use bench"),
        ("moe_serve.planted", "def f():\n    import moe_serve.bench", "may not use bench"),
        ("moe_serve.errors", "import moe_serve.types", "errors may not use types"),
        ("moe_serve.bench.planted", "import moe_serve.cli", "bench may not use cli"),
        (
            "moe_placement.plan",
            "def f():\n    from moe_placement import plan_diff",
            "import circle: moe_placement.plan -> moe_placement.plan_diff -> moe_placement.plan",
        ),
    ],
)
def test_a_planted_fault_is_seen(
    sources: dict[str, Source], module: str, line: str, fault: str
) -> None:
    faults = plant(sources, module, line)
    assert any(module in found and fault in found for found in faults), faults


def test_torch_in_a_function_of_a_light_room_is_allowed(sources: dict[str, Source]) -> None:
    assert plant(sources, "moe_serve.control.requests.client", "def f():\n    import torch") == []


def test_a_circle_is_found_behind_modules_that_only_lead_to_it() -> None:
    imports = {
        "moe_serve.a": (Import("moe_serve.b"),),
        "moe_serve.b": (Import("moe_serve.c", at_start=False),),
        "moe_serve.c": (Import("moe_serve.b"), Import("json")),
        "moe_serve.d": (),
    }
    assert list(circles(imports)) == ["import circle: moe_serve.b -> moe_serve.c -> moe_serve.b"]
