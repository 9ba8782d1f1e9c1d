"""`moe_plan pack`: who sits where, what is short, the config that it writes, and wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.config.load import load_config

Run = Callable[..., Any]
SLICES = """
slices:
  - {name: chat, memory: 20GiB, compute_percent: 30, duty: 0.3, count: 4, bandwidth: 300GB/s}
  - {name: embed, memory: 4GiB, compute_percent: 10, mode: hard}
"""
CONFIG = """
# one big model and two small ones
models:
  - {path: demo, dtype: float32, slice: {compute_percent: 50, memory_mb: 300}}
  - {path: /models/chat, spread: one, slice: {compute_percent: 30, memory_mb: 400}}
  - {path: /models/embed, name: vectors, spread: one, slice: {compute_percent: 30, memory_mb: 90}}
pools:
  - {name: host, device: cpu, ranks: 2, memory: 1GiB}
server: {port: 0}
"""


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    path = tmp_path / "slices.yaml"
    path.write_text(SLICES)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(CONFIG)
    return path


def test_it_tells_who_sits_where_and_what_it_assumes(run: Run, slices: Path) -> None:
    done = run("pack", slices, "--devices", "h100_sxm:4")
    assert (done.code, done.err) == (0, "")
    for part in (
        "5 of 5 placed; at most 5 could be",
        "2 of 4 hold slices",
        "2; these slices need at least 2 (gap 0.0%)",
        "found in",
        "Who sits where",
        "chat-3",
        "h100_sxm:0",
        "3.33",
        "1 of the slices say no bandwidth",
        "It is assumed that:",
        "tenants of a device take turns",
    ):
        assert part in done.out, part


def test_what_does_not_fit_says_why_and_the_exit_code_is_1(run: Run, slices: Path) -> None:
    done = run("pack", slices, "--devices", "h100_sxm:1")
    assert done.code == 1
    assert "4 of 5 placed; at most 4 could be" in done.out
    assert "What does not fit" in done.out
    assert "h100_sxm:0 comes nearest: compute 30% is asked for, 0% is left (30% short)" in done.out


def test_json_is_one_object_with_the_same(run: Run, slices: Path) -> None:
    done = run("pack", slices, "--devices", "h100_sxm:1", "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert set(found["device_of"].values()) == {"h100_sxm:0"}
    (lost,) = found["unplaced"]
    assert lost["why"].startswith(f"{lost['name']}: h100_sxm:0 comes nearest")
    (device,) = found["devices"]
    assert device["compute"] == pytest.approx(1.0)
    assert device["busy"] == pytest.approx(0.37)
    assert device["bandwidth"] == pytest.approx(3 * 300 / 3350)
    assert found["seconds"] > 0 and len(found["assumptions"]) == 3


def test_bursty_slices_are_overcommitted_on_request(run: Run, slices: Path) -> None:
    words = ("pack", slices, "--devices", "h200_sxm:1", "--overcommit", "2")
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "2 times, of bursty slices" in done.out
    (device,) = json.loads(run(*words, "--json").out)["devices"]
    assert device["compute"] == pytest.approx(1.3)
    assert device["compute_excess"] == pytest.approx(0.3**4, abs=1e-9)


def test_slices_may_be_spread_evenly(run: Run, slices: Path) -> None:
    done = run("pack", slices, "--devices", "h100_sxm:5", "--objective", "even")
    assert "30.0% of the fullest device; at least 30.0%" in done.out


def test_the_config_it_writes_is_what_the_engine_reads(
    run: Run, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "packed.yaml"
    done = run("pack", config, "--out", out)
    assert (done.code, done.err) == (0, f"moe_plan: wrote {out}\n")
    assert out.read_text().startswith(f"# Made by: moe_plan pack {config} --out {out}\n")
    before, after = (load_config(path, to_serve=False) for path in (config, out))
    assert [(model.spread, model.rank) for model in before.models] == [
        ("auto", -1),
        ("one", -1),
        ("one", -1),
    ]
    assert after.models[0] == before.models[0]
    assert {(model.spread, model.rank) for model in after.models[1:]} == {("one", 0), ("one", 1)}
    assert [model.slice for model in after.models] == [model.slice for model in before.models]
    again = run("pack", out, "--json")
    assert json.loads(again.out)["device_of"] == {
        "chat": f"host:{after.models[1].rank}",
        "vectors": f"host:{after.models[2].rank}",
    }


def test_no_config_is_written_where_a_model_has_no_room(
    run: Run, config: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(config.read_text())
    content["pools"][0]["ranks"] = 1
    config.write_text(yaml.safe_dump(content))
    out = tmp_path / "packed.yaml"
    done = run("pack", config, "--out", out)
    assert (done.code, out.exists()) == (1, False)
    assert f"{out} is not written, for not all models have room" in done.err
    assert "host:0 comes nearest: compute 30% is asked for, 20% is left (10% short)" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "devices are missing; write them here, or give --devices or --cluster"),
        (("--devices", "h300:2"), "device 'h300' is not in the catalogue"),
        (
            ("--devices", "l40s:2", "--overcommit", "0.5"),
            "--overcommit is 0.5; it must be at least",
        ),
        (
            ("--devices", "l40s:2", "--time-limit", "-1"),
            "--time-limit is -1; it must be at least 0",
        ),
        (("--devices", "l40s:2", "--objective", "best"), "invalid choice: 'best'"),
        (("--cluster", "none.yaml"), "none.yaml cannot be read"),
        (("--devices", "l40s:2", "--cluster", "x"), "not allowed with argument"),
        (("--devices", "l40s:2", "--out", "elsewhere/x.yaml"), "is not beside"),
    ],
)
def test_wrong_input_is_one_line(
    refuse: Callable[..., str], slices: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refuse("pack", slices, *words)


def test_only_a_config_has_ranks_to_set(
    refuse: Callable[..., str], slices: Path, tmp_path: Path
) -> None:
    said = refuse("pack", slices, "--devices", "l40s:2", "--out", tmp_path / "out.yaml")
    assert "only a moe_serve config has ranks to set" in said


def test_a_file_without_slices_or_models_is_refused(
    refuse: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("groups: []\n")
    assert "has neither slices nor models" in refuse("pack", path)
    assert "cannot be read" in refuse("pack", tmp_path / "none.yaml")


def test_a_solver_that_prints_does_not_disturb_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], slices: Path
) -> None:
    """HiGHS does now and then, by C's own buffer; a program that writes there stands for it."""
    import ctypes

    from moe_placement.cli.main import main
    from moe_placement.packing import pack as packing

    solve = packing.fewest_devices

    def noisy(*arguments: Any) -> Any:
        ctypes.CDLL(None).puts(b"noise")
        return solve(*arguments)

    monkeypatch.setattr(packing, "fewest_devices", noisy)
    assert main(["pack", str(slices), "--devices", "h100_sxm:2", "--json"]) == 0
    printed = capfd.readouterr()
    assert "noise" in printed.err
    json.loads(printed.out)
