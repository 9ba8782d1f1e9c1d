"""`moe_plan solve`: what it prints and writes, that the engine takes it, and wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from moe_placement.load.trace import ExpertLoad
from moe_placement.load.trace_file import save
from moe_placement.model.catalogue import find_model
from moe_placement.plan_file import load as load_plan

from moe_serve.cli import run as moe_serve

Run = Callable[..., Any]
MODEL = ("--model", "mixtral_8x7b")
FIGURES = ("--rate", "2", "--prompt-tokens", "500", "--output-tokens", "100")
SMALL = (*MODEL, "--devices", "h200_sxm:2@2.5", *FIGURES)


@pytest.fixture
def load_file(tmp_path: Path) -> Path:
    spec = find_model("mixtral_8x7b")
    counts_TLE = np.random.default_rng(0).integers(1, 500, (2, len(spec.moe_layers), 8))
    path = tmp_path / "load.npz"
    save(
        ExpertLoad(model="m", layers=spec.moe_layers, counts_TLE=counts_TLE, steps_per_window=9),
        path,
    )
    return path


def test_a_plan_is_printed_with_its_reasons(run: Run) -> None:
    done = run("solve", *SMALL)
    assert (done.code, done.err) == (0, "")
    for part in (
        "mixtral_8x7b on 2 x h200_sxm",
        "2 requests a second of 500 prompt and 100 output tokens in the mean",
        "gap ",
        "what binds",
        "Alternatives, the best first",
        "chosen",
        "Choices",
        "Memory of the fullest rank of each pool",
        "cost an hour",
        "5.00",
    ):
        assert part in done.out, part


def test_json_is_one_object_with_the_same_plan(run: Run) -> None:
    found = json.loads(run("solve", *SMALL, "--json").out)
    assert found["model"] == "mixtral_8x7b"
    assert found["alternatives"][0]["cost_per_hour"] == pytest.approx(5.0)
    assert found["prediction"]["request_rate"] == pytest.approx(2.0)
    assert found["step_seconds"] >= found["lower_bound"] > 0
    assert all(rank["fits"] for rank in found["memory"])
    assert sum(len(pool["ranks"]) for pool in found["pools"]) == found["num_ranks"] <= 2


def test_what_it_writes_is_what_the_engine_checks_and_prices(
    run: Run, tmp_path: Path, load_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, page, plot = (tmp_path / name for name in ("out.yaml", "out.html", "out.png"))
    files = ("--output", config, "--report", page, "--plot", plot)
    done = run("solve", *SMALL, "--runnable", "--load", load_file, *files, "--json")
    assert done.code == 0
    planned = json.loads(done.out)
    assert moe_serve(["--check", "--json", "--config", str(config)]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["problems"], checked["unserved"]) == ([], [])
    assert [rank["total"] for rank in checked["ranks"]] == [
        rank["total"] for rank in planned["memory"]
    ]
    assert load_plan(tmp_path / "out.plan.json").num_ranks == planned["num_ranks"]
    head = config.read_text().splitlines()[0]
    assert head.startswith(
        "# Made by: moe_plan solve --model mixtral_8x7b --devices h200_sxm:2@2.5"
    )
    assert yaml.safe_load(config.read_text())["placement"] == {"plan": "out.plan.json"}
    text = page.read_text()
    assert "equal split: fullest" in text
    assert "moe_plan solve --model mixtral_8x7b" in text
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_plan_with_roles_and_formats_of_later_versions_is_checked_with_warnings(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "apart.yaml"
    limits = ("--phases", "apart", "--weights", "fp8", "--slo", "ttft=3s,tpot=60ms")
    assert run("solve", *SMALL, *limits, "--output", config).code == 0
    assert moe_serve(["--check", "--json", "--config", str(config)]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert {pool["role"] for pool in checked["plan"]["pools"]} == {"prefill", "decode"}
    assert {pool["weight_format"] for pool in checked["plan"]["pools"]} == {"fp8"}
    assert checked["problems"] == []
    assert all("with fp8 weights" in sentence for sentence in checked["unserved"][-2:])
    assert len(checked["unserved"]) >= 2


def test_a_model_whose_config_is_nested_is_checked_too(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "nested.yaml"
    words = ("--model", "qwen3_5_397b_a17b", "--devices", "b200_sxm:8", *FIGURES)
    assert run("solve", *words, "--phases", "together", "--output", config).code == 0
    assert moe_serve(["--check", "--json", "--config", str(config)]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["problems"] == []
    assert any("does not serve it" in sentence for sentence in checked["unserved"])


def test_a_plan_can_start_from_an_old_one(run: Run, tmp_path: Path, load_file: Path) -> None:
    config = tmp_path / "first.yaml"
    assert run("solve", *SMALL, "--runnable", "--output", config).code == 0
    old = tmp_path / "first.plan.json"
    words = ("--runnable", "--load", load_file, "--old", old, "--move", "1TiB")
    output = tmp_path / "second.yaml"
    assert run("solve", *SMALL, *words, "--output", output).code == 0
    assert load_plan(tmp_path / "second.plan.json").epoch == load_plan(old).epoch + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*MODEL, "--devices", "h200_sxm:2", "--rate", "1000", *FIGURES[2:]), "1000 requests/s"),
        ((*MODEL, "--devices", "l40s:1", *FIGURES, "--weights", "bfloat16"), "GiB are missing"),
        ((*SMALL, "--slo", "tpot=1us"), "tpot"),
    ],
)
def test_what_cannot_be_had_says_what_is_short(run: Run, words: tuple[str, ...], said: str) -> None:
    done = run("solve", *words)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "mixtrall", "--devices", "h200_sxm:2", *FIGURES), "'mixtrall' is neither"),
        ((*MODEL, "--devices", "h300:2", *FIGURES), "device 'h300' is not in the catalogue"),
        ((*MODEL, "--devices", "h200_sxm", *FIGURES), "write device:count"),
        ((*MODEL, "--cluster", "none.yaml", *FIGURES), "none.yaml cannot be read"),
        ((*SMALL, "--concurrency", "4"), "--rate and --concurrency"),
        ((*SMALL, "--rate", "0"), "--rate is 0; it must be above 0"),
        ((*SMALL, "--prompt-cv", "-1"), "--prompt-cv is -1; it must be at least 0"),
        ((*SMALL, "--cached-share", "1"), "--cached-share is 1; it must be at least 0 and below 1"),
        ((*MODEL, "--devices", "h200_sxm:2", "--rate", "1"), "--prompt-tokens is missing; give it"),
        ((*SMALL, "--slo", "ttft"), "--slo 'ttft': 'ttft' has no =; write key=value"),
        ((*SMALL, "--slo", "tbt=3s"), "--slo: unknown key 'tbt'; keys: ttft, tpot, percentile"),
        ((*SMALL, "--slo", "ttft=2x"), "--slo: ttft is '2x'; write a time such as 5us or 2ms"),
        ((*SMALL, "--slo", "ttft=1s,ttft=2s"), "'ttft=2s' is given twice"),
        ((*SMALL, "--slo", "percentile=95"), "--slo: percentile is '95'; write a number above 0"),
        ((*SMALL, "--weights", "fp7"), "--weights: unknown format 'fp7'; use float32"),
        ((*SMALL, "--weights", "h100=fp8"), "formats names the group 'h100'"),
        ((*SMALL, "--max-sequences", "0"), "--max-sequences 0: must be at least 1"),
        ((*SMALL, "--memory-fraction", "1.5"), "memory_fraction 1.5 is not within 0..1"),
        ((*SMALL, "--move", "1GiB"), "--move limits what is loaded to leave --old"),
        ((*SMALL, "--old", "none.json"), "plan file none.json cannot be read"),
        ((*SMALL, "--load", "none.npz"), "load file none.npz cannot be read"),
        ((*SMALL, "--coefficients", "none.json"), "none.json"),
        ((*SMALL, "--trace", "none.csv"), "none.csv"),
        ((*SMALL, "--phases", "never"), "argument --phases: invalid choice: 'never'"),
    ],
)
def test_wrong_input_is_one_line(
    refuse: Callable[..., str], words: tuple[str, ...], said: str
) -> None:
    assert said in refuse("solve", *words)


def test_a_load_of_another_model_is_refused(refuse: Callable[..., str], load_file: Path) -> None:
    words = ("--model", "qwen3_30b_a3b", "--devices", "h200_sxm:2", *FIGURES)
    said = refuse("solve", *words, "--load", load_file)
    assert "has 32 layers of 8 experts, qwen3_30b_a3b has 48 of 128" in said


def test_a_file_that_cannot_be_written_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "out.yaml"
    said = refuse("solve", *SMALL, "--output", path)
    assert said == f"--output {path}: cannot be written: No such file or directory"
