"""`moe_bench placement` prints the solver's figures beside EPLB's, and writes them."""

import json
from pathlib import Path

import pytest

from moe_serve.bench.cli import main


def test_it_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "placement.json"
    assert main(["placement", "--only", "two-layers", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "EPLB's README" in printed
    assert "1.208" in printed
    assert "1.242" in printed
    record = json.loads(path.read_text())
    assert record["benchmark"] == "placement"
    assert [row["layer"] for row in record["rows"]] == [0, 1]
    for row, eplb in zip(record["rows"], (1.208, 1.242), strict=True):
        assert row["benchmark"] == "two-layers"
        assert row["eplb"] == pytest.approx(eplb, abs=5e-4)
        assert 1.0 <= row["ours"] < row["eplb"]


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["placement", "--only", "three-layers"])
    assert "two-layers" in capsys.readouterr().err
