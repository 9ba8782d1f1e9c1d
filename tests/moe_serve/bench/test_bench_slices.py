"""`moe_bench slices`: a table of it from real ranks; and what it refuses."""

import json
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from moe_serve.bench.cli import main
from moe_serve.bench.slices_job import Run
from moe_serve.bench.slices_machine import find_gaps
from moe_serve.bench.slices_ranks import serving
from moe_serve.errors import ConfigError


def left_behind() -> list[psutil.Process]:
    """Children, without that of multiprocessing which frees what others share: it ends last."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if "resource_tracker" not in " ".join(each.cmdline())]


@pytest.mark.slow
def test_a_victim_beside_a_neighbour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main(["slices", "--tables", "victim", "--seconds", "1", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert written["benchmark"] == "slices" and written["parameters"] == {"seconds": 1.0}
    assert written["machine"]["cores"] > 0 and written["versions"]["torch"]
    rows = written["rows"]
    assert {row["table"] for row in rows} == {"victim"}
    alone, share, hard, in_turn = rows[:4]
    for row in (alone, share, hard, in_turn):
        assert row["tokens"] > 0 and 0 < row["p50 ms"] <= row["p99 ms"] <= row["largest ms"]
        assert row["p99 / alone"] == row["p99 ms"] / alone["p99 ms"]
    # Nothing bounds a step there but the tokens that it may have.
    longest = "neighbour's longest step ms"
    assert in_turn[longest] > 2 * min(share[longest], hard[longest])
    # Others on the machine lengthen steps; without a cap it would have all of the time.
    assert 5 < alone["achieved %"] < 60
    assert [row["target"] for row in rows[4:]] == ["<= 1.3", "<= 1.3"]
    output = capsys.readouterr().out
    assert "p99" in output and "targets" in output
    assert not left_behind()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tables", "shares", "speed"], "--tables: there is no 'speed'; use machine, shares, .*"),
        (["--seconds", "0.5"], "--seconds: windows are up to 1 s, a run of 0.5 s has none; .*"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slices", *words]) == 2
    assert re.fullmatch(f"moe_bench: error: {message}\n", capsys.readouterr().err)


@pytest.mark.slow
def test_what_the_machine_takes(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["slices", "--tables", "machine", "--seconds", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["processes"] for row in rows] == [1, 2]
    assert all(row["seconds"] == 3 and 0 <= row["taken %"] < 100 for row in rows)
    assert all(row["longest ms"] < 3000 for row in rows)
    assert not left_behind()


def test_a_process_that_is_stopped_finds_it() -> None:
    """By the clock of both."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        process = psutil.Process(processes.submit(os.getpid).result())
        begin = time.perf_counter() + 0.5
        found = processes.submit(find_gaps, begin, 0.5)
        while time.perf_counter() < begin + 0.1:
            time.sleep(0.01)
        stopped = time.perf_counter()
        process.suspend()
        time.sleep(0.15)
        process.resume()
        passed = time.perf_counter() - stopped
        gaps = found.result()
    assert 0.14 < max(gaps) < passed + 0.1


@pytest.mark.slow
def test_ranks_that_cannot_serve_say_why(tmp_path: Path) -> None:
    config = {"models": [{"path": str(tmp_path)}], "pools": [{"name": "host", "device": "cpu"}]}
    with (
        pytest.raises(ConfigError, match=r"ranks of the slices benchmark ended .*config.json"),
        serving(config, tmp_path / "ranks") as ranks,
    ):
        ranks.run(Run(percents={0: 100}, seconds=1.0))
    assert not left_behind()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["shares", "memory", "packing", "idle"])
def test_each_table_has_its_targets(table: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["slices", "--tables", table, "--seconds", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    targets = [row for row in rows if row["of"] == "targets"]
    assert targets and len(targets) < len(rows)
    assert all(row["window"] and row["met"] in ("yes", "no") for row in targets)
    assert not left_behind()
