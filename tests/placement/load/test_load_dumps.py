"""Load that vLLM, SGLang and the ADRS task wrote is read as what each expert got."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moe_placement.load.formats.adrs import read_adrs
from moe_placement.load.formats.sglang import read_sglang
from moe_placement.load.formats.torch_file import read_torch_file
from moe_placement.load.formats.vllm import read_vllm
from moe_placement.load.trace import LoadError

# Two layers, three experts, four physical experts: expert 1, then expert 2, has two.
MAP_LS = [[0, 1, 2, 1], [0, 2, 1, 2]]
WINDOW_TLS = [[[1, 2, 3, 4], [5, 6, 7, 8]], [[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 0, 0, 1]] * 2]
LOGICAL_TLE = [[[1, 6, 3], [5, 7, 14]], [[1, 1, 0], [1, 0, 1]]]


def write(path: Path, content: dict[str, Any]) -> Path:
    """As JSON, .npz or with torch.save, by the ending."""
    if path.suffix == ".pt":
        torch.save({key: torch.tensor(value) for key, value in content.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("ending", ["json", "npz", "pt"])
def test_vllm_windows_become_rows_of_experts(tmp_path: Path, ending: str) -> None:
    content = {"expert_load_window": WINDOW_TLS, "physical_to_logical_map": MAP_LS}
    paths = [write(tmp_path / f"rank{rank}.{ending}", content) for rank in range(2)]
    load = read_vllm(paths, model="m", layers=[3, 4])
    assert (load.model, load.layers, load.steps_per_window) == ("m", (3, 4), 1)
    np.testing.assert_array_equal(load.counts_TLE, 2 * np.array(LOGICAL_TLE))


def test_vllm_dumps_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"expert_load_window": WINDOW_TLS})
    with pytest.raises(LoadError, match=r"a\.json: key 'physical_to_logical_map' is missing"):
        read_vllm([path], model="m")
    other = {"expert_load_window": WINDOW_TLS, "physical_to_logical_map": [[0, 1, 2]] * 2}
    with pytest.raises(LoadError, match=r"do not fit a map .* of shape \(2, 3\)"):
        read_vllm([write(tmp_path / "b.json", other)], model="m")
    with pytest.raises(LoadError, match="give those of all ranks"):
        read_vllm([], model="m")


@pytest.mark.parametrize("ending", ["json", "pt"])
def test_sglang_stat_leaves_dense_layers_out(tmp_path: Path, ending: str) -> None:
    counts_TLE = np.zeros((3, 4, 3), np.int64)
    counts_TLE[1:, [1, 3]] = LOGICAL_TLE
    path = write(tmp_path / f"stat.{ending}", {"logical_count": counts_TLE.tolist()})
    load = read_sglang([path], model="m")
    assert load.layers == (1, 3)
    np.testing.assert_array_equal(load.counts_TLE, LOGICAL_TLE)


def test_sglang_records_add_up_over_ranks(tmp_path: Path) -> None:
    paths = []
    for rank in range(2):
        records = [
            {
                "forward_pass_id": number,
                "rank": rank,
                "gatherer_key": "primary",
                "global_physical_count": torch.tensor(WINDOW_TLS[window], dtype=torch.int32),
            }
            for number, window in ((7, 0), (8, 2))
        ]
        path = tmp_path / f"expert_distribution_recorder_1.5_{rank}.pt"
        torch.save({"records": records, "last_physical_to_logical_map": torch.tensor(MAP_LS)}, path)
        paths.append(path)
    load = read_sglang(paths, model="m")
    np.testing.assert_array_equal(load.counts_TLE, 2 * np.array(LOGICAL_TLE))


def test_adrs_history(tmp_path: Path) -> None:
    history = [{"logical_expert_load": counts_LE} for counts_LE in LOGICAL_TLE]
    path = write(tmp_path / "expert-load.json", {"load_history": history})
    np.testing.assert_array_equal(read_adrs(path, model="m").counts_TLE, LOGICAL_TLE)
    for wrong, message in (
        ([], "must be a list with at least one step"),
        ([{}], "key 'logical_expert_load' is missing"),
        ([{"logical_expert_load": [[1, 2], [3]]}], "lines of unequal length"),
        ([{"logical_expert_load": [[1.5, 2]]}], "it must hold whole numbers"),
        ([{"logical_expert_load": [[0, 0]]}], "all counts are 0"),
    ):
        write(path, {"load_history": wrong})
        with pytest.raises(LoadError, match=message):
            read_adrs(path, model="m")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    with pytest.raises(LoadError, match=r"dump\.json cannot be read: No such file"):
        read_adrs(path, model="m")
    path.write_text("[1")
    with pytest.raises(LoadError, match="is no JSON"):
        read_adrs(path, model="m")
    path.write_text("[1]")
    with pytest.raises(LoadError, match="holds a list; it must hold named values"):
        read_adrs(path, model="m")
    broken = path.with_suffix(".pt")
    broken.write_bytes(b"PK nothing")
    with pytest.raises(LoadError, match=r"no file of torch\.save"):
        read_sglang([broken], model="m")


def test_tensors_of_any_layout(tmp_path: Path) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4)
    views = {
        "whole": tensor,
        "turned": tensor.transpose(0, 2)[1:],
        "floats": tensor.float(),
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(5),
        "text": "plain",
    }
    torch.save(views, tmp_path / "views.pt")
    back = read_torch_file(tmp_path / "views.pt")
    assert back.pop("text") == views.pop("text")
    for name, array in back.items():
        np.testing.assert_array_equal(array, views[name].numpy())


def test_a_tensor_that_is_larger_than_what_is_stored_is_refused(tmp_path: Path) -> None:
    torch.save({"logical_count": torch.ones(1).expand(1 << 40)}, tmp_path / "wide.pt")
    with pytest.raises(LoadError, match="reaches beyond its storage"):
        read_sglang([tmp_path / "wide.pt"], model="m")


class Planted:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"logical_count": Planted()}, tmp_path / "planted.pt")
    with pytest.raises(LoadError, match=r"holds a __builtin__\.exec, which is no data"):
        read_sglang([tmp_path / "planted.pt"], model="m")


@pytest.mark.parametrize("count", ["1e300", "Infinity", "NaN", "9007199254740992", "0.5"])
def test_counts_that_are_none_are_named(tmp_path: Path, count: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"logical_count": [[1, {count}]]}}')
    with pytest.raises(LoadError, match=r"a\.json: key 'logical_count' is .* whole numbers"):
        read_sglang([path], model="m")


def test_a_map_to_more_experts_than_slots_is_named(tmp_path: Path) -> None:
    content = {"expert_load_window": [[[1, 1]]], "physical_to_logical_map": [[0, 10**15]]}
    with pytest.raises(LoadError, match="holds 1000000000000000, but only 2 physical ones"):
        read_vllm([write(tmp_path / "a.json", content)], model="m")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (5, "key 'records' is a int; it must be a list"),
        ([{"forward_pass_id": "x"}], "one without a whole 'forward_pass_id'"),
        ([None], "one without a whole 'forward_pass_id'"),
    ],
)
def test_sglang_records_that_are_none(tmp_path: Path, records: object, message: str) -> None:
    content = {"records": records, "last_physical_to_logical_map": [[0, 1]]}
    with pytest.raises(LoadError, match=message):
        read_sglang([write(tmp_path / "a.json", content)], model="m")


def test_a_damaged_torch_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", {"logical_count": [[1, 2, 3]] * 40})
    sound, random, num_refused = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(200):
        damaged = bytearray(sound)
        for place in random.integers(0, len(sound), 8):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_sglang([path], model="m")
        except LoadError:
            num_refused += 1
    assert num_refused > 20
