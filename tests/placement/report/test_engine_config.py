"""A plan as an engine config: moe_serve's own check takes it as it is and prices it alike."""

import json
from pathlib import Path

import pytest
import yaml
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec, GroupLink, NodeGroup
from moe_placement.plan_file import load
from moe_placement.report.engine_config import config_text, write_config
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.solution import Solution

from moe_serve.cli import run


@pytest.fixture
def cluster() -> ClusterSpec:
    def group(name: str, device: str) -> NodeGroup:
        return NodeGroup(name=name, device=find_device(device), num_nodes=1, devices_per_node=1)

    link = GroupLink(between=("hopper", "ascend"), bandwidth=25e9, latency=5e-6)
    groups = (group("hopper", "h200_sxm"), group("ascend", "atlas_a2_376t"))
    return ClusterSpec(groups=groups, links=(link,))


def text_of(solution: Solution, cluster: ClusterSpec, model: str = "mixtral_8x7b") -> str:
    return config_text(
        solution.plan,
        model=model,
        cluster=cluster,
        memories=solution.memories,
        constraints=Constraints(),
        max_context=32768,
        plan_file="mixed.plan.json",
        made_by="moe_plan solve ...",
    )


def test_the_engine_checks_it_unchanged(
    solution: Solution, cluster: ClusterSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.yaml"
    plan_file = write_config(path, text_of(solution, cluster), solution.plan)
    assert plan_file == tmp_path / "mixed.plan.json"
    assert load(plan_file) == solution.plan
    assert run(["--check", "--json", "--config", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    assert found["problems"] == []
    priced = [rank["total"] for rank in found["ranks"]]
    assert priced == [memory.total for memory in solution.memories]
    assert any("with fp8 weights" in sentence for sentence in found["unserved"])


def test_what_cannot_be_served_is_refused_when_it_is_to_be(
    solution: Solution, cluster: ClusterSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.yaml"
    write_config(path, text_of(solution, cluster), solution.plan)
    assert run(["--config", str(path)]) == 2
    assert "this version does not compute with fp8 weights" in capsys.readouterr().err


def test_links_and_memory_are_said_with_units(solution: Solution, cluster: ClusterSpec) -> None:
    text = text_of(solution, cluster)
    assert text.startswith("# Made by: moe_plan solve ...\n# To serve")
    found = yaml.safe_load(text)
    assert found["links"] == [
        {"between": ["hopper", "ascend"], "bandwidth": "25000000000B/s", "latency": "5us"}
    ]
    assert [pool["memory"] for pool in found["pools"]] == ["141GB", "64GiB"]
    assert found["model"] == {
        "path": "builtin:mixtral_8x7b",
        "name": "mixtral_8x7b",
        "dtype": "bfloat16",
        "max_context": 32768,
    }


def test_a_checkpoint_is_named_by_its_folder(
    solution: Solution, cluster: ClusterSpec, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    for named in (tmp_path, config):
        text = text_of(solution, cluster, str(named))
        assert yaml.safe_load(text)["model"]["path"] == str(tmp_path)
        assert "To serve" not in text
