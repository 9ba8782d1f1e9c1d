"""Pools that cannot serve one model: all mpiruns say why in one line each, soon, and end."""

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Run, serve_command
from live_server import mpirun
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.plan_file import save
from world_runs import MOE_LAYERS, NUM_EXPERTS, kill

from moe_serve.config.load import load_config
from moe_serve.control.meeting.host import host_memory
from moe_serve.early_checks import check_plan
from moe_serve.errors import PlacementError

LIMIT_SECONDS = 10.0
EMULATED = {"device": "emulated", "memory": "1GiB", "threads": 1}
HALVES = (tuple(range(NUM_EXPERTS // 2)), tuple(range(NUM_EXPERTS // 2, NUM_EXPERTS)))
Write = Callable[[Mapping[str, Any]], Path]
StartCommand = Callable[[list[str]], Run]
StartWorld = Callable[..., tuple[Run, Run]]


def pool(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "device": "cpu", "ranks": 1, "threads": 1} | keys


def refusal(run: Run) -> str:
    """The one line of a run that was not to be."""
    code = run.wait_for_end(30.0)
    seconds = run.seconds_since_start()
    assert code == 2, run.errors
    assert len(run.error_lines) == 1, run.errors
    assert "Traceback" not in run.errors
    assert "ready" not in run.output
    assert seconds < LIMIT_SECONDS, run.errors
    return run.error_lines[0]


@pytest.fixture
def start_world(
    two_ranks: dict[str, Any], write_config: Write, start_command: StartCommand
) -> StartWorld:
    """start_world(pools, **sections): the runs of two pools in an mpirun each."""

    def start(pools: list[dict[str, Any]], **sections: Any) -> tuple[Run, Run]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        world = {"world": {"address": address, "wait": "20s"}}
        file = write_config(two_ranks | {"pools": pools} | world | sections)
        first, second = (
            start_command(mpirun(1, *serve_command(file, "--pools", each["name"])))
            for each in pools
        )
        return first, second

    return start


def test_a_link_between_two_mpiruns_that_is_not_declared(
    start_world: StartWorld, folder: Path
) -> None:
    """Both plan, before torch is loaded, and find the same."""
    pools = [
        pool("fast", **EMULATED, hardware=str(device_file(folder, "gpu_like"))),
        pool("slow", **EMULATED, hardware=str(device_file(folder, "cpu_like"))),
    ]
    for run in start_world(pools):
        line = refusal(run)
        assert line.startswith('links: pools "fast" (emulated '), line
        assert "no link joins them; declare it, e.g. links: [{between: [fast, slow]" in line


def device_file(folder: Path, name: str) -> Path:
    shipped = Path(__file__).parents[3] / "configs" / "devices" / f"{name}.yaml"
    copy = folder / shipped.name
    copy.write_text(shipped.read_text())
    return copy


def write_plan(file: Path) -> None:
    pools = tuple(
        PoolPlan(name, "cpu", (rank,), "both", "float32") for rank, name in enumerate(("a", "b"))
    )
    weights = tuple((1.0,) * len(experts) for experts in HALVES)
    layers = dict.fromkeys(MOE_LAYERS, LayerPlan(HALVES, weights))
    save(Plan("tiny", NUM_EXPERTS, pools, layers), file)


def lose_an_expert(plan: dict[str, Any]) -> None:
    for layer in plan["layers"].values():
        layer["slots"][1].pop()
        layer["weights"][1].pop()


def name_an_unknown_rank(plan: dict[str, Any]) -> None:
    plan["pools"][1]["ranks"] = [7]


def change_a_role(plan: dict[str, Any]) -> None:
    plan["pools"][1]["role"] = "experts"


CHANGES = [
    (lose_an_expert, "layer 0: expert 11 is on no rank"),
    (name_an_unknown_rank, "rank 1 is in no pool, rank 7 is in pool 'b'"),
    (change_a_role, 'has pool "b" with role experts, the config says pools[1].role both'),
]


@pytest.fixture
def with_plan(two_ranks: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """with_plan(change): a config of two pools whose plan file was changed."""

    def change_plan(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        file = tmp_path / "plan.json"
        write_plan(file)
        plan = json.loads(file.read_text())
        change(plan)
        file.write_text(json.dumps(plan))
        sections = {"pools": [pool("a"), pool("b")], "placement": {"plan": str(file)}}
        return two_ranks | sections

    return change_plan


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_plan_file_that_does_not_suit(
    change: Callable[[dict[str, Any]], None],
    said: str,
    with_plan: Callable[..., dict[str, Any]],
    write_config: Write,
) -> None:
    """What every rank looks at before torch is loaded."""
    check_plan(load_config(write_config(with_plan(lambda plan: None))))
    with pytest.raises(PlacementError, match=r"^placement\.plan: ") as refused:
        check_plan(load_config(write_config(with_plan(change))))
    assert said in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_ranks_of_a_plan_file_that_does_not_suit(
    change: Callable[[dict[str, Any]], None],
    said: str,
    start: Callable[..., Run],
    with_plan: Callable[..., dict[str, Any]],
) -> None:
    line = refusal(start(with_plan(change)))
    assert line.startswith("placement.plan: ")
    assert said in line


def test_a_rank_without_room(start: Callable[..., Run], two_ranks: dict[str, Any]) -> None:
    """Alone, as it would be under mpirun."""
    line = refusal(start(two_ranks | {"pools": [pool("a", memory="8MiB")]}, num_ranks=0))
    assert line.startswith("plan needs ") and "7.2 MiB free" in line


@pytest.mark.slow
def test_two_mpiruns_without_room(start_world: StartWorld) -> None:
    for run in start_world([pool("a"), pool("b", memory="8MiB")]):
        assert refusal(run).startswith("plan needs ")


@pytest.mark.slow
def test_two_mpiruns_that_declare_more_than_their_host_has(start_world: StartWorld) -> None:
    share = f"{int(0.6 * host_memory())}B"
    for run in start_world([pool("a", memory=share), pool("b", memory=share)]):
        line = refusal(run)
        assert line.startswith("pools[..].memory: ")
        assert "for the 2 ranks on host " in line and "(a 1 x " in line


@pytest.mark.slow
def test_an_mpirun_that_is_killed_while_it_loads(start_world: StartWorld) -> None:
    """Its rank has joined, and has not called the other one."""
    first, second = start_world([pool("a"), pool("b")])
    deadline = time.monotonic() + 20.0
    while not any(is_loading(process) for process in second.family()):
        assert time.monotonic() < deadline, "it does not load"
        time.sleep(0.01)
    kill(second)
    killed = time.monotonic()
    assert first.wait_for_end(30.0) in (1, 2), first.errors
    assert time.monotonic() - killed < LIMIT_SECONDS
    assert len(first.error_lines) == 1, first.errors
    assert "Traceback" not in first.errors


def is_loading(process: Any) -> bool:
    return any("libtorch" in each.path for each in process.memory_maps())
