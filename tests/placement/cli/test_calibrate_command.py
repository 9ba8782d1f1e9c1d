"""`moe_plan calibrate` on this machine, with a tiny layer; and what it refuses."""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hardware_files import measurement
from moe_placement.cli import calibrate
from moe_placement.cli.parser import Parser, UsageError
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster_file import parse_groups
from moe_placement.hardware.curves import expert_curve

TINY = (
    "--threads=1",
    "--hidden=64",
    "--expert-width=32",
    "--experts=4",
    "--seconds=0.3",
    "--formats=float32",
)

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="measuring is done with torch")


def parsed(*options: str) -> argparse.Namespace:
    parser = Parser(prog="moe_plan")
    calibrate.add_parser(parser.add_subparsers())
    return parser.parse_args(["calibrate", *options])


@needs_torch
def test_what_the_measuring_process_prints_becomes_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "asked.json"
    (tmp_path / "printing.py").write_text(
        f"import json, pathlib, sys\npathlib.Path({str(asked)!r}).write_text("
        f"json.dumps(sys.argv[1:]))\nprint({json.dumps(json.dumps(measurement()))})\n"
    )
    monkeypatch.setattr(calibrate, "_MEASURED_BY", "printing")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "there.yaml"
    options = parsed(*TINY, f"--output={path}")
    assert options.run(options) == 0
    assert set(TINY) <= set(json.loads(asked.read_text()))
    device = find_device(path)
    assert (device.name, device.memory_bytes) == ("there", 64 << 30)
    assert expert_curve(device, "bfloat16") is device.curves["bfloat16"]
    assert "Held out" in capsys.readouterr().out


@needs_torch
@pytest.mark.slow
def test_this_machine_becomes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "here.yaml"
    options = parsed(*TINY, f"--output={path}", "--network-bandwidth=10GB/s")
    assert options.run(options) == 0
    device = find_device(path)
    assert (device.name, device.network_bandwidth) == ("here", 10e9)
    assert expert_curve(device, "float32") is device.curves["float32"]
    assert device.curves["float32"].seconds(1e9, 1e12) > 1e-3
    assert parse_groups(f"{path}:1").num_devices == 1
    shown = capsys.readouterr().out
    assert "Held out" in shown and "float32" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network-latency=5ml",), "--network-latency is '5ml'; write a time such as 5us"),
        (("--network-bandwidth=1GB",), "--network-bandwidth is '1GB'; write a rate such as"),
        (("--output=here.json",), r"--output is here\.json; name a \.yaml file"),
        (("--output=/nowhere/here.yaml",), "name a .yaml file in a folder that exists"),
    ],
)
def test_wrong_options_are_named(options: tuple[str, ...], message: str) -> None:
    namespace = parsed(*options)
    with pytest.raises(UsageError, match=message):
        namespace.run(namespace)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "find_spec", lambda name: None)
    namespace = parsed(*TINY)
    with pytest.raises(UsageError, match=r"pip install 'moe-serve\[serve\]'"):
        namespace.run(namespace)


@needs_torch
def test_a_measurement_that_fails_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate, "_MEASURED_BY", "moe_kernels.nothing")
    namespace = parsed(*TINY)
    assert namespace.run(namespace) == 2
    assert "moe_kernels.nothing" in capfd.readouterr().err
