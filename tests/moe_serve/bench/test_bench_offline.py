"""`moe_bench offline`: real runs on a checkpoint of a few layers; a table, and figures in JSON."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_serve.bench.cli import main

Checkpoints = Callable[..., Path]
SHORT = ["--batch", "2", "--prompt-tokens", "8", "--new-tokens", "4", "--repeats", "1"]
ONE_RANK = ["--without", "transformers", "2 ranks", "--threads", "1"]
CONTESTANTS = ("transformers", "1 rank", "2 ranks")


def run(path: Path, file: Path, *options: str) -> Any:
    assert main(["offline", "--model", str(path), *SHORT, "--json", str(file), *options]) == 0
    return json.loads(file.read_text())


def check_record(written: Any, path: Path) -> None:
    assert written["benchmark"] == "offline"
    assert written["machine"]["cores"] > 0 and written["machine"]["processor"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", written["versions"]["torch"])
    assert {"date", "commit"} <= set(written)
    assert written["parameters"]["model"] == path.name
    assert written["parameters"]["num_new_tokens"] == 4
    assert [(row["phase"], row["batch_size"]) for row in written["rows"]] == [
        ("prefill", 2),
        ("decode", 2),
    ]


@pytest.mark.slow
def test_one_rank_alone(
    checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint("qwen3_moe")
    written = run(path, tmp_path / "figures.json", *ONE_RANK)
    check_record(written, path)
    prefill, decode = written["rows"]
    assert prefill["1 rank"] > 0
    # Differences of two short times: on a busy machine any number may come out.
    assert math.isfinite(decode["1 rank"]) and math.isfinite(decode["outside_model"])
    output, errors = capsys.readouterr()
    assert errors == "running 1 rank ...\n"
    assert f"{path.name}, tokens per second" in output
    assert re.search(r"prefill.*\b2\b", output) and re.search(r"decode.*\b2\b", output)


@pytest.mark.slow
def test_all_contestants(
    checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint("deepseek_v3")
    written = run(path, tmp_path / "figures.json")
    check_record(written, path)
    for row in written["rows"]:
        assert all(math.isfinite(row[name]) for name in CONTESTANTS)
        assert row["ratio_to_transformers"] == row["1 rank"] / row["transformers"]
        assert row["two_ranks_ratio"] == row["2 ranks"] / row["1 rank"]
    assert 0.5 < written["rows"][1]["byte_ratio"] < 1
    assert capsys.readouterr().err.count("running ") == len(CONTESTANTS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "checkpoint .*missing is not a directory; check"),
        ("", "no config.json"),
        ('{"architectures": ["GPT2LMHeadModel"]}', "GPT2LMHeadModel is not supported"),
    ],
)
def test_a_wrong_model_is_one_line_and_exit_code_2(
    config: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing"
    if config is not None:
        path.mkdir()
    if config:
        (path / "config.json").write_text(config)
    assert main(["offline", "--model", str(path)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(f"moe_bench: error: .*{message}.*\n", errors)
