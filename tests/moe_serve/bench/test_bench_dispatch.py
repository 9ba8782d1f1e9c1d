"""`moe_bench dispatch`: real runs; a table, and figures in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_serve.bench.cli import main

SHORT = ["--tokens", "4", "--repeats", "3", "--width", "64", "--experts", "8", "--chosen", "2"]


def run(file: Path, *options: str) -> Any:
    assert main(["dispatch", *SHORT, "--json", str(file), *options]) == 0
    written = json.loads(file.read_text())
    assert written["benchmark"] == "dispatch"
    assert written["machine"]["cores"] > 0 and written["versions"]["torch"]
    assert {"date", "commit"} <= set(written)
    assert written["parameters"]["width"] == 64
    return written["rows"]


@pytest.mark.slow
def test_one_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = run(tmp_path / "figures.json", "--ranks", "1")
    assert (row["ranks"], row["collective"], row["tokens"]) == (1, "local", 4)
    assert row["dispatch_and_combine_us"] > 0
    assert [value for key, value in row.items() if key.endswith("sent")] == [0.0]
    output = capsys.readouterr().out
    assert "microseconds" in output and "local" in output


@pytest.mark.slow
def test_two_ranks_over_mpi_and_gloo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path / "figures.json", "--ranks", "2")
    assert [row["collective"] for row in rows] == ["mpi", "gloo"]
    for row in rows:
        assert row["dispatch_and_combine_us"] > 0 and row["bare_exchange_us"] > 0
        # Of the 8 rows some go to the other rank, and the other's come here and go back.
        (sent,) = (value for key, value in row.items() if key.endswith("sent"))
        assert 0 < sent <= 2 * 8 * 64 * 2 / 1e3
    assert "gloo" in capsys.readouterr().out
