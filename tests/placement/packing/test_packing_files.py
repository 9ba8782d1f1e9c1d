"""Slices from files: what each key means, and one line for what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from moe_placement.equal_split import equal_split
from moe_placement.hardware.cluster_file import parse_groups
from moe_placement.hardware.section import HardwareError, read_section
from moe_placement.memory.rank_memory import rank_memory
from moe_placement.model.catalogue import find_model
from moe_placement.packing.equal_parts import with_equal_parts
from moe_placement.packing.pack import pack
from moe_placement.packing.serve_config import placed_config, read_tenants
from moe_placement.packing.slices import PackDevice, PackItem
from moe_placement.packing.slices_file import read_slices
from moe_placement.plan import PoolPlan
from moe_placement.plan_file import save

Write = Callable[[dict[str, Any]], Path]
GIB, MIB = 2**30, 2**20
MOE, DENSE = "qwen3_30b_a3b", "qwen3_8b"
SLICE = {"name": "a", "compute_percent": 10, "memory": "8GiB"}
DEVICES = [{"name": "gpu", "device": "h100_sxm", "count": 2}]
POOLS = [{"name": "gpu", "device": "cuda", "ranks": 2, "memory": "80GiB"}]
LOCAL = {"path": "/x/b", "spread": "one", "slice": {"compute_percent": 20, "memory_mb": 100}}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(content: dict[str, Any]) -> Path:
        path = tmp_path / "asked.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write_file


def weights_of(name: str, kv_tokens: int) -> int:
    spec = find_model(name)
    plan = equal_split("x", 0, (), (PoolPlan("x", "cuda", (0,)),))
    priced = rank_memory(
        spec,
        plan,
        0,
        max_tokens_per_step=2048,
        max_sequences=256,
        page_size=64,
        num_pages=-(-kv_tokens // 64),
        device_bytes=0,
        memory_fraction=1.0,
    )
    return priced.total


def test_every_key_of_a_slice_and_a_device_is_read(write: Write) -> None:
    full = SLICE | {
        "bandwidth": "100GB/s",
        "bandwidth_percent": 5,
        "mode": "hard",
        "isolate": "sm",
        "duty": 0.4,
        "count": 2,
        "apart": True,
        "devices": ["gpu", "host:0"],
    }
    taken = {"compute_percent": 30, "memory": "10GiB", "bandwidth": "1GB/s"}
    host = {"name": "host", "memory": "1GiB", "bandwidth": "50GB/s", "taken": taken}
    items, devices = read_slices(
        read_section(write({"slices": [full], "devices": [*DEVICES, host]})), None
    )
    assert [item.name for item in items] == ["a-0", "a-1"]
    assert items[1] == PackItem(
        name="a-1",
        compute=0.1,
        memory=8 * GIB,
        bandwidth=100e9,
        bandwidth_share=0.05,
        allowed=("gpu:0", "gpu:1", "host:0"),
        hard=True,
        duty=0.4,
        apart="a",
        at_once=True,
    )
    assert devices[0] == PackDevice(name="gpu:0", memory=80 * GIB, bandwidth=3350e9)
    assert devices[2] == PackDevice(
        name="host:0",
        memory=GIB,
        bandwidth=50e9,
        taken_compute=0.3,
        taken_memory=10 * GIB,
        taken_bandwidth=1e9,
    )


def test_a_model_says_what_memory_it_takes(write: Write) -> None:
    asked = {"name": "a", "compute_percent": 10, "model": DENSE, "kv_tokens": 1000}
    path = write({"slices": [asked, asked | {"name": "b", "apart": "both", "memory": "1GiB"}]})
    (first, second), devices = read_slices(read_section(path), parse_groups("h200_sxm:1,l40s:2"))
    assert first.memory == weights_of(DENSE, 1000) > 15 * 10**9
    assert (second.memory, second.apart) == (GIB, "both")
    assert [device.name for device in devices] == ["h200_sxm:0", "l40s:0", "l40s:1"]
    assert devices[2].bandwidth == 864e9


@pytest.mark.parametrize("with_plan", [False, True])
def test_what_experts_take_differs_by_device(write: Write, tmp_path: Path, with_plan: bool) -> None:
    spec = find_model(MOE)
    pool = PoolPlan("gpu", "cuda", (0, 1, 2))
    plan = equal_split(MOE, spec.num_experts, spec.moe_layers, (pool,))
    save(plan, tmp_path / "big.plan.json")
    beside = {"model": MOE, "compute_percent": 40, "kv_tokens": 6400}
    beside |= {"plan": "big.plan.json"} if with_plan else {}
    beside |= {"devices": ["gpu"]}
    spare = {"name": "spare", "memory": "1GiB"}
    content = {"slices": [SLICE], "devices": [DEVICES[0] | {"count": 3}, spare]}
    _, devices = read_slices(read_section(write(content | {"beside": [beside]})), None)
    assert devices.pop() == PackDevice(name="spare:0", memory=GIB)
    first, second, third = (device.taken_memory for device in devices)
    assert first == second, "43 experts of each layer"
    assert first - third == len(spec.moe_layers) * spec.expert_bytes("bfloat16"), "42 of them"
    assert {device.taken_compute for device in devices} == {0.4}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slices": [SLICE | {"compute_percent": 101}]}, "slices[0].compute_percent is 101; write"),
        ({"slices": [{"name": "a", "memory": "1GiB"}]}, "slices[0].compute_percent is missing"),
        ({"slices": [{"name": "a", "compute_percent": 1}]}, "slices[0].memory is missing; write a"),
        ({"slices": [SLICE | {"mode": "soft"}]}, "mode is 'soft'; write share or hard"),
        ({"slices": [SLICE | {"duty": 0}]}, "slices[0].duty is 0; write a number above 0"),
        ({"slices": [SLICE | {"dutty": 1}]}, "unknown key 'slices[0].dutty'; did you mean"),
        ({"slices": [SLICE | {"devices": ["tpu"]}]}, "names 'tpu', which is no device here; there"),
        ({"devices": []}, "devices are missing; write them here, or give --devices or --cluster"),
        ({"devices": [{"name": "gpu"}]}, "devices[0].memory is missing; write a size, or a device"),
        ({"devices": [{"name": "gpu", "device": "h300"}]}, "device 'h300' is not in the catalogue"),
        ({"beside": [{"model": MOE, "plan": "none.json"}]}, "none.json cannot be read"),
        ({"besides": []}, "unknown key 'besides'; did you mean \"beside\"?"),
    ],
)
def test_a_wrong_key_is_named(write: Write, change: dict[str, Any], said: str) -> None:
    path = write({"slices": [SLICE], "devices": DEVICES} | change)
    with pytest.raises(ValueError) as caught:
        read_slices(read_section(path), None)
    assert said in str(caught.value)


def test_a_plan_of_other_ranks_is_refused(write: Write, tmp_path: Path) -> None:
    save(equal_split(MOE, 128, range(48), (PoolPlan("x", "cuda", (0,)),)), tmp_path / "p.json")
    content = {"slices": [SLICE], "devices": DEVICES, "beside": [{"model": MOE, "plan": "p.json"}]}
    with pytest.raises(HardwareError, match="has 1 ranks, and there are 2 devices"):
        read_slices(read_section(write(content)), None)


def test_devices_are_given_once(write: Write) -> None:
    path = write({"slices": [SLICE], "devices": DEVICES})
    with pytest.raises(HardwareError, match="devices are given twice"):
        read_slices(read_section(path), parse_groups("l40s:1"))


def test_a_config_has_tenants_beside_those_that_span_it(write: Write) -> None:
    big = {"path": "demo", "slice": {"compute_percent": 40, "memory_mb": 1000}}
    models = [
        big,
        {"path": f"builtin:{DENSE}", "name": "chat", "rank": 1},
        {"path": f"builtin:{DENSE}", "dtype": "float32", "spread": "one"},
        LOCAL | {"slice": LOCAL["slice"] | {"mode": "hard", "isolate": "sm"}},
    ]
    cache = {"memory_fraction": 0.5}
    tenants = read_tenants(
        read_section(write({"models": models, "pools": POOLS} | {"cache": cache})), None
    )
    chat, wide, other = tenants.items
    assert (chat.name, chat.allowed, chat.compute) == ("chat", ("gpu:1",), 0.01)
    assert chat.memory == weights_of(DENSE, 256)
    assert (wide.name, wide.allowed) == (DENSE, None)
    assert wide.memory > chat.memory + 15 * 10**9
    assert (other.name, other.compute, other.memory) == ("b", 0.2, 100 * MIB)
    assert other.hard and other.at_once
    assert tenants.unsaid == {"chat", DENSE}
    assert tenants.devices[1] == PackDevice(
        name="gpu:1", memory=40 * GIB, taken_compute=0.4, taken_memory=1000 * MIB
    )


def test_who_says_no_share_gets_an_equal_part_of_what_is_left(write: Write) -> None:
    one = {"spread": "one", "path": f"builtin:{DENSE}"}
    models = [
        {"path": f"builtin:{MOE}"},
        one | {"name": "a", "rank": 0},
        one | {"name": "b", "rank": 0, "slice": {"compute_percent": 40}},
        one | {"name": "c", "rank": 1, "slice": {"compute_percent": 20}},
    ]
    tenants = read_tenants(read_section(write({"models": models, "pools": POOLS})), None)
    assert tenants.num_spanning_unsaid == 1
    packing, items = with_equal_parts(pack(tenants.items, tenants.devices), tenants)
    assert {item.name: item.compute for item in items} == pytest.approx(
        {"a": 0.3, "b": 0.4, "c": 0.2}
    )
    assert [device.compute for device in packing.devices] == pytest.approx([1.0, 0.5])
    assert packing.tenants[0].saturated == pytest.approx(1 / 0.3)


def test_a_plan_file_says_what_each_rank_has_of_the_first_model(
    write: Write, tmp_path: Path
) -> None:
    spec = find_model(MOE)
    pool = PoolPlan("gpu", "cuda", (0, 1, 2))
    save(equal_split(MOE, 128, spec.moe_layers, (pool,)), tmp_path / "moe.plan.json")
    content = {
        "models": [{"path": f"builtin:{MOE}"}, LOCAL],
        "pools": [POOLS[0] | {"ranks": 3}],
        "placement": {"plan": "moe.plan.json"},
    }
    tenants = read_tenants(read_section(write(content)), None)
    taken = [device.taken_memory for device in tenants.devices]
    assert taken[0] - taken[2] == len(spec.moe_layers) * spec.expert_bytes("bfloat16")


def test_ranks_are_what_they_are_said_to_be(write: Write) -> None:
    pools = [{"name": "gpu", "device": "cuda", "ranks": 2, "hardware": "h20"}]
    path = write({"models": [LOCAL], "pools": pools})
    by_pool = read_tenants(read_section(path), None).devices
    assert by_pool[0] == PackDevice(name="gpu:0", memory=int(0.9 * 96 * GIB), bandwidth=4e12)
    given = read_tenants(read_section(path), parse_groups("h200_sxm:1,l40s:1")).devices
    assert [device.bandwidth for device in given] == [4800e9, 864e9]


def test_a_config_gets_ranks_and_keeps_the_rest() -> None:
    models = [{"path": "demo"}, {"path": "/x/b"}, LOCAL | {"name": "c"}, {"path": "builtin:d"}]
    config = {"models": models, "server": 1}
    placed = placed_config(config, {"b": 1, "c": 0, "d": 1})
    assert placed["server"] == 1
    assert placed["models"][:2] == [{"path": "demo"}, {"path": "/x/b", "spread": "one", "rank": 1}]
    assert [model["rank"] for model in placed["models"][2:]] == [0, 1]
    assert "rank" not in models[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": []}, "models is missing; list the models"),
        (
            {"models": [{"path": "demo", "slice": {"memory_mb": 9}}]},
            "nothing to pack; write spread",
        ),
        (
            {"models": [{"path": "demo"}]},
            "models[0].slice.memory_mb is missing, and what the model",
        ),
        ({"models": [{"path": "/x/none"}]}, "models[0].path: model '/x/none' is neither a file"),
        ({"models": [LOCAL | {"rank": 2}]}, "models[0].rank is 2; the pools have ranks 0 to 1"),
        ({"models": [LOCAL | {"spread": "some"}]}, "spread is 'some'; write auto or all or one"),
        ({"pools": [{"name": "gpu", "device": "cuda"}]}, "pools[0].memory is missing; write what"),
        ({"pools": [{"name": "gpu", "device": "tpu"}]}, "device is 'tpu'; write cpu or cuda"),
        ({"pools": []}, "pools is missing; list the pools"),
    ],
)
def test_a_config_that_cannot_be_packed_says_why(
    write: Write, change: dict[str, Any], said: str
) -> None:
    path = write({"models": [LOCAL], "pools": POOLS} | change)
    with pytest.raises(HardwareError) as caught:
        read_tenants(read_section(path), None)
    assert said in str(caught.value)


def test_a_device_is_given_for_each_rank(write: Write) -> None:
    path = write({"models": [LOCAL], "pools": POOLS})
    with pytest.raises(HardwareError, match="pools have 2 ranks, and 3 devices are given"):
        read_tenants(read_section(path), parse_groups("l40s:3"))
