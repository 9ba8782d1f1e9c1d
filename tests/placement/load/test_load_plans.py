"""Placements go out to vllm-ascend, TensorRT-LLM and EPLB's arrays, and come back the same."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moe_placement.load.formats.eplb_arrays import read_eplb_arrays, write_eplb_arrays
from moe_placement.load.formats.tensorrt_llm import read_load_balancer, write_load_balancer
from moe_placement.load.formats.vllm_ascend import read_expert_map, write_expert_map
from moe_placement.plan import LayerPlan, PlanError

Plans = dict[int, LayerPlan]
# Three experts on two ranks of two slots, in two layers of a model whose first is dense.
PLANS: Plans = {
    1: LayerPlan(((2, 0), (1, 2)), ((0.5, 1.0), (1.0, 0.5))),
    2: LayerPlan(((0, 1), (2, 0)), ((0.5, 1.0), (1.0, 0.5))),
}
FORMATS: dict[str, tuple[str, Any, Any]] = {
    "vllm-ascend": ("map.json", write_expert_map, partial(read_expert_map, layers=[1, 2])),
    "tensorrt-llm": ("eplb.yaml", write_load_balancer, partial(read_load_balancer, num_ranks=2)),
    "eplb-npz": (
        "eplb.npz",
        write_eplb_arrays,
        partial(read_eplb_arrays, num_ranks=2, layers=[1, 2]),
    ),
    "eplb-json": (
        "eplb.json",
        write_eplb_arrays,
        partial(read_eplb_arrays, num_ranks=2, layers=[1, 2]),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_placement_comes_back_as_it_went(tmp_path: Path, name: str) -> None:
    file, write, read = FORMATS[name]
    assert write(tmp_path / file, PLANS) == ""
    assert read(tmp_path / file) == PLANS


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_dropped_with_a_warning(tmp_path: Path, name: str) -> None:
    file, write, read = FORMATS[name]
    weighted = PLANS | {2: LayerPlan(((0, 1), (2, 0)), ((0.8, 1.0), (1.0, 0.2)))}
    assert "the replicas of 1 experts in 1 layers share unevenly" in write(
        tmp_path / file, weighted
    )
    assert read(tmp_path / file) == PLANS


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, name: str) -> None:
    file, write, _ = FORMATS[name]
    uneven = {1: LayerPlan(((0, 1, 2), (0,)), ((0.5, 1.0, 1.0), (0.5,)))}
    with pytest.raises(PlanError, match="layer 1, rank 1 has 1, others 3; solve with equal slots"):
        write(tmp_path / file, uneven)
    groups = {1: LayerPlan(((0, 1), (0, 1)), ((1.0, 1.0), (1.0, 1.0)))}
    with pytest.raises(PlanError, match="several EP groups"):
        write(tmp_path / file, groups)
    with pytest.raises(PlanError, match="without MoE layers"):
        write(tmp_path / file, {})
    assert not (tmp_path / file).exists()


def test_the_map_is_as_vllm_ascend_writes_it(tmp_path: Path) -> None:
    write_expert_map(tmp_path / "map.json", PLANS)
    record = json.loads((tmp_path / "map.json").read_text())
    assert record["moe_layer_count"] == 2
    assert record["layer_list"][0] == {
        "layer_id": 0,
        "device_count": 2,
        "device_list": [
            {"device_id": 0, "device_expert": [2, 0]},
            {"device_id": 1, "device_expert": [1, 2]},
        ],
    }


def test_the_yaml_is_as_tensorrt_llm_writes_it(tmp_path: Path) -> None:
    write_load_balancer(tmp_path / "eplb.yaml", PLANS, layer_updates_per_iter=2)
    assert (tmp_path / "eplb.yaml").read_text() == (
        "initial_global_assignments:\n  1: [2, 0, 1, 2]\n  2: [0, 1, 2, 0]\n"
        "layer_updates_per_iter: 2\nnum_slots: 4\n"
    )


def test_arrays_are_as_eplb_returns_them(tmp_path: Path) -> None:
    write_eplb_arrays(tmp_path / "eplb.json", PLANS)
    arrays = json.loads((tmp_path / "eplb.json").read_text())
    assert arrays["phy2log"] == [[2, 0, 1, 2], [0, 1, 2, 0]]
    assert arrays["log2phy"] == [[[1, -1], [2, -1], [0, 3]], [[0, 3], [1, -1], [2, -1]]]
    assert arrays["logcnt"] == [[1, 1, 2], [2, 1, 1]]


def test_an_expert_twice_on_a_rank_is_one_replica_with_both_shares(tmp_path: Path) -> None:
    path = tmp_path / "eplb.json"
    path.write_text(json.dumps({"phy2log": [[0, 0, 1, 0]]}))
    plan = read_eplb_arrays(path, num_ranks=2)[0]
    assert plan.slots == ((0,), (1, 0))
    np.testing.assert_allclose(np.concatenate(plan.weights), [2 / 3, 1, 1 / 3])


def arrays_without(tmp_path: Path, change: dict[str, Any]) -> Callable[[], object]:
    write_eplb_arrays(tmp_path / "eplb.json", PLANS)
    arrays = json.loads((tmp_path / "eplb.json").read_text()) | change
    (tmp_path / "eplb.json").write_text(json.dumps(arrays))
    return partial(read_eplb_arrays, tmp_path / "eplb.json", num_ranks=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phy2log": [[0, 1, 2]]}, "3 slots do not divide over 2 ranks"),
        ({"phy2log": [[0, 1, 3, 0]]}, "layer 0: expert 2 is on no rank"),
        ({"phy2log": [[0, 1, 2, -1]]}, "a slot holds expert -1"),
        ({"phy2log": [[0, 1, 2, 0], [0, 1, 1, 0]]}, "layer 1: expert 2 is on no rank"),
        ({"logcnt": [[1, 1, 2], [1, 1, 2]]}, "logcnt does not count"),
        ({"log2phy": [[[1, -1], [2, -1], [0, 1]]] * 2}, "log2phy does not list"),
    ],
)
def test_arrays_that_contradict_themselves(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        arrays_without(tmp_path, change)()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no YAML"),
        ("num_slots: 4", "key 'initial_global_assignments' must map"),
        ("{num_slots: 4, initial_global_assignments: {1: [0, 1]}}", "layer 1 has 2 slots"),
        ("{num_slots: 2, initial_global_assignments: {1: [0, a]}}", "with a list of experts"),
        ("{num_slots: 3, initial_global_assignments: {1: [0, 1, 2]}}", "3 slots do not divide"),
    ],
)
def test_yaml_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "eplb.yaml").write_text(text)
    with pytest.raises(PlanError, match=message):
        read_load_balancer(tmp_path / "eplb.yaml", num_ranks=2)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "key 'layer_list' is missing"),
        ({"moe_layer_count": 1, "layer_list": []}, "is not the 0 layers"),
        ({"moe_layer_count": 1, "layer_list": [3]}, "are not as in an expert_map"),
    ],
)
def test_a_map_that_is_wrong(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    (tmp_path / "map.json").write_text(json.dumps(record))
    with pytest.raises(PlanError, match=message):
        read_expert_map(tmp_path / "map.json")


def test_a_map_with_unlike_devices(tmp_path: Path) -> None:
    devices = [{"device_id": 0, "device_expert": [0, 1]}, {"device_id": 1, "device_expert": [2]}]
    record = {"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_list": devices}]}
    (tmp_path / "map.json").write_text(json.dumps(record))
    with pytest.raises(PlanError, match=r"\[2\] devices with \[1, 2\] experts"):
        read_expert_map(tmp_path / "map.json")


def expert_map(held: object, device: object = 0) -> str:
    devices = [{"device_id": device, "device_expert": held}]
    layers = [{"layer_id": 0, "device_count": 1, "device_list": devices}]
    return json.dumps({"moe_layer_count": 1, "layer_list": layers})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (expert_map(5), "not as in an expert_map.json: object of type 'int'"),
        (expert_map([0, 1], device="x"), "not as in an expert_map.json: invalid literal"),
        (expert_map([0, 1.5]), "device_expert holds what is no whole number"),
        (expert_map([0, 10**12]), "a slot holds expert 1000000000000, but a layer has 2 slots"),
    ],
)
def test_expert_maps_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "expert_map.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=rf"expert_map\.json: .*{message}"):
        read_expert_map(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{initial_global_assignments: {}, num_slots: '16'}", "num_slots is '16'; it must be"),
        ("{initial_global_assignments: {}, num_slots: 16}", "assignments' has no layers"),
        ("{initial_global_assignments: {0: [0]}, num_slots: true}", "num_slots is True; it"),
        (
            "{initial_global_assignments: {0: [0, 99999999999999999999]}, num_slots: 2}",
            "layer 0 must be a number with a list of experts",
        ),
    ],
)
def test_load_balancer_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=rf"a\.yaml: .*{message}"):
        read_load_balancer(path, num_ranks=1)
