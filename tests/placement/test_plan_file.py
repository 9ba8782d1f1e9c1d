"""Plans survive a file; a file that is not a plan is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moe_placement.equal_split import equal_split
from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan
from moe_placement.plan_file import load, save

POOLS = (
    PoolPlan("hopper", "cuda", (0, 2), "decode", "fp8", 2),
    PoolPlan("host", "cpu", (1,), "experts", "int8"),
)
LAYER = LayerPlan(((0, 1), (), (1,)), ((1.0, 1 / 3), (), (2 / 3,)))
PLAN = Plan("DeepSeek-V3 深度", 2, POOLS, {3: LAYER, 10: LAYER}, epoch=7)


def test_a_plan_comes_back_equal(tmp_path: Path) -> None:
    save(PLAN, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_ep_groups_come_back_and_older_files_have_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    pools = (
        PoolPlan("left", "cuda", (0,), "prefill"),
        PoolPlan("right", "cuda", (1, 2), "decode", ep_group=1, num_ep_groups=2),
    )
    layer = LayerPlan(((0, 1),) * 3, ((1.0, 1.0),) * 3)
    plan = Plan("demo", 2, pools, {0: layer})
    save(plan, path)
    assert load(path) == plan
    save(PLAN, path)
    data = json.loads(path.read_text("utf-8"))
    for pool in data["pools"]:
        del pool["ep_group"], pool["num_ep_groups"]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert load(path) == PLAN


def test_saving_replaces_the_older_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save(PLAN, path)
    dense = equal_split("dense", 0, (), (PoolPlan("host", "cpu", (0,)),))
    save(dense, path)
    assert load(path) == dense


def test_an_invalid_plan_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="expert 2 is on no rank"):
        save(replace(PLAN, num_experts=3), tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def drop(*keys: str | int) -> Callable[[Any], None]:
    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return edit


def put(value: object, *keys: str | int) -> Callable[[Any], None]:
    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (put(2, "version"), "format version 2 is not known; this program reads version 1"),
        (put("1", "version"), "format version '1' is not known"),
        (put(True, "version"), "format version True is not known"),
        (drop("version"), "key 'version' is missing"),
        (drop("epoch"), "key 'epoch' is missing in the plan"),
        (drop("pools", 1, "role"), "key 'role' is missing in pools[1]"),
        (drop("layers", "10", "weights"), "key 'weights' is missing in layers[10]"),
        (put(0.5, "speed"), "the plan has unknown key 'speed'"),
        (put("two", "num_experts"), "'num_experts' in the plan must be int, found str"),
        (put(True, "num_experts"), "'num_experts' in the plan must be int, found bool"),
        (put([1], "pools", 0), "pools[0] must be an object, found list"),
        (put("0", "pools", 0, "ep_group"), "'ep_group' in pools[0] must be int, found str"),
        (put(["0"], "pools", 0, "ranks"), "pools[0].ranks must be a list of int"),
        (put([0.0, 1], "layers", "3", "slots", 0), "layers[3].slots must be a list of int"),
        (put(1.0, "layers", "3", "weights", 0), "layers[3].weights must be a list of float"),
        (put({}, "layers", "first"), "key 'first' is not a layer number"),
        (put([0.5, 1], "layers", "3", "weights", 0), "layer 3: the weights of expert 0 sum"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(
    tmp_path: Path, edit: Callable[[Any], None], sentence: str
) -> None:
    path = tmp_path / "plan.json"
    save(PLAN, path)
    data = json.loads(path.read_text("utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "plan.json"
    save(PLAN, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(PlanError, match=r"plan\.json is damaged: "):
        load(path)


def test_a_binary_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00plan")
    with pytest.raises(PlanError, match=r"plan\.json is damaged: "):
        load(path)


def test_other_json_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(PlanError, match="is this a plan file"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plan\.json cannot be read: No such file"):
        load(tmp_path / "plan.json")
