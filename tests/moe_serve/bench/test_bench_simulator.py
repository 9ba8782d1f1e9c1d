"""The simulator's benchmark measures each scheduler and says what it cannot find."""

import json
from pathlib import Path

import pytest

from moe_serve.bench.cli import main


def test_it_prints_and_writes_a_row_for_each_scheduler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, written = tmp_path / "trace.csv", tmp_path / "figures.json"
    trace.write_text("arrival,prompt_tokens,output_tokens\n0,100,20\n1,200,30\n")
    sizes = ["--sequences", "4", "--steps", "50"]
    assert main(["simulator", *sizes, "--trace", str(trace), "--json", str(written)]) == 0
    rows = json.loads(written.read_text())["rows"]
    assert [row["scheduler"] for row in rows] == ["stand-in", "stand-in", "engine", "engine"]
    assert rows[0]["steps"] == rows[2]["steps"] == 50
    # Prefill and decoding of both: the schedulers take the same steps.
    assert rows[1]["steps"] == rows[3]["steps"] == 50
    assert rows[1]["requests"] == 2
    assert "steps a" in capsys.readouterr().out


def test_an_unknown_scheduler_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulator", "--schedulers", "other"]) == 2
    assert "'other' is not installed; use one of stand-in" in capsys.readouterr().err
