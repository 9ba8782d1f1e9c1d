"""What keeps ranks from serving: one line, exit code 2, soon, and nothing left."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import rewrite_json
from fault_runs import Run, serve_command
from live_server import mpirun
from safetensors.torch import load_file, save_file

# 12 experts on 2 ranks.
OF_RANK_1 = "model.layers.2.mlp.experts.11.down_proj.weight"
OF_ALL = "model.layers.1.self_attn.q_proj.weight"
FOREIGN = "9.9.9"


@pytest.fixture
def broken(small: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be broken."""
    return Path(shutil.copytree(small, tmp_path / "broken"))


@pytest.fixture
def fails(start: Callable[..., Run], two_ranks: dict[str, Any]) -> Callable[..., str]:
    """fails(checkpoint, **sections of the config): the one line that two ranks end with."""

    def check(path: Path, **sections: Any) -> str:
        model = two_ranks["model"] | {"path": str(path)}
        return the_one_line(start(two_ranks | {"model": model} | sections))

    return check


def the_one_line(run: Run) -> str:
    code = run.wait_for_end(30.0)
    seconds = run.seconds_since_start()
    assert code == 2, run.errors
    assert len(run.error_lines) == 1, run.errors
    assert "Traceback" not in run.errors
    assert "ready" not in run.output
    assert seconds < 10.0, run.errors
    return run.error_lines[0]


def change_tensors(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.slow
def test_a_tensor_that_one_rank_alone_misses(broken: Path, fails: Callable[..., str]) -> None:
    change_tensors(broken, lambda tensors: tensors.pop(OF_RANK_1))
    line = fails(broken)
    assert line.startswith("rank 1: ")
    assert f"has no tensor {OF_RANK_1}" in line


@pytest.mark.slow
def test_a_tensor_that_one_rank_alone_finds_misshapen(
    broken: Path, fails: Callable[..., str]
) -> None:
    change_tensors(broken, lambda tensors: tensors.update({OF_RANK_1: tensors[OF_RANK_1][:-1]}))
    line = fails(broken)
    assert line.startswith("rank 1: ")
    assert f"tensor {OF_RANK_1} " in line
    assert "shape [95, 48]" in line
    assert "expected [96, 48]" in line


@pytest.mark.slow
def test_a_tensor_that_all_ranks_miss(broken: Path, fails: Callable[..., str]) -> None:
    change_tensors(broken, lambda tensors: tensors.pop(OF_ALL))
    assert f"has no tensor {OF_ALL}" in fails(broken)


@pytest.mark.slow
def test_a_truncated_file(broken: Path, fails: Callable[..., str]) -> None:
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    line = fails(broken)
    assert f"{file} is truncated: tensor " in line
    assert "copy it again" in line


@pytest.mark.slow
def test_an_architecture_that_is_not_supported(broken: Path, fails: Callable[..., str]) -> None:
    other = {"architectures": ["Gpt9ForCausalLM"], "model_type": "gpt9"}
    rewrite_json(broken / "config.json", lambda content: content | other)
    line = fails(broken)
    assert "Gpt9ForCausalLM" in line
    assert "Qwen3MoeForCausalLM" in line


@pytest.mark.slow
def test_a_tokenizer_that_the_front_end_cannot_read(
    broken: Path, fails: Callable[..., str]
) -> None:
    (broken / "tokenizer_config.json").write_text("{")
    assert f"cannot read the tokenizer in {broken}" in fails(broken)


@pytest.mark.slow
def test_a_pool_without_room(small: Path, fails: Callable[..., str]) -> None:
    pool = {"name": "host", "device": "cpu", "ranks": 2, "threads": 1, "memory": "8MiB"}
    line = fails(small, pools=[pool])
    found = re.match(
        r"plan needs ([\d.]+) MiB on cpu:0, 7\.2 MiB free \(2 ranks of pool host ", line
    )
    assert found is not None, line
    assert float(found[1]) > 7.2


@pytest.fixture
def start_unlike(
    two_ranks: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    start_command: Callable[[list[str]], Run],
) -> Callable[..., Run]:
    """start_unlike(prefix, *words): rank 1 runs behind `prefix` and with more `words`."""

    def start_run(prefix: list[str], *words: str) -> Run:
        file = write_config(two_ranks)
        other = [*prefix, *serve_command(file, *words)]
        return start_command([*mpirun(1, *serve_command(file)), ":", "-n", "1", *other])

    return start_run


def test_ranks_of_different_weights(start_unlike: Callable[..., Run], broken: Path) -> None:
    """Of the same shapes, under a path of their own."""
    change_tensors(broken, lambda tensors: tensors[OF_ALL].mul_(1.01))
    line = the_one_line(start_unlike([], "--set", f"model.path={broken}"))
    assert line.startswith("plan rank 1 ")
    assert "reads weights of model.path with digest" in line
    assert "give every rank the same checkpoint" in line


@pytest.mark.slow
def test_ranks_of_different_versions(start_unlike: Callable[..., Run], tmp_path: Path) -> None:
    metadata = tmp_path / "other" / f"moe_serve-{FOREIGN}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.4\nName: moe-serve\nVersion: {FOREIGN}\n")
    line = the_one_line(start_unlike(["env", f"PYTHONPATH={tmp_path / 'other'}"]))
    assert line.startswith("plan rank 1 ")
    assert f"runs version {FOREIGN}, plan rank 0 0." in line


@pytest.mark.slow
def test_ranks_with_different_configs(start_unlike: Callable[..., Run]) -> None:
    line = the_one_line(start_unlike([], "--set", "scheduler.max_sequences=9"))
    assert line.startswith("plan rank 1 ")
    assert "read a config with digest" in line
    assert "give every rank the same config file" in line


def test_a_launcher_of_another_mpi(
    two_ranks: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    start_command: Callable[[list[str]], Run],
) -> None:
    """Its variables say two ranks, and this MPI is started as one."""
    names = {"RANK": 0, "SIZE": 2, "LOCAL_RANK": 0, "LOCAL_SIZE": 2}
    variables = [f"OMPI_COMM_WORLD_{name}={value}" for name, value in names.items()]
    run = start_command(["env", *variables, *serve_command(write_config(two_ranks))])
    assert the_one_line(run).startswith("the launcher started 2 ranks, but MPI sees 1; use the")
