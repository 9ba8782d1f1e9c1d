"""A calibration of a tiny layer: what it measures hangs together, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from moe_kernels import calibrate, calibrate_measure
from moe_kernels.calibrate import main
from moe_kernels.calibrate_measure import ExpertShape, ExpertTimer, GridPoint, grid, median_seconds

CPU = torch.device("cpu")
TINY = ("--hidden=64", "--expert-width=32", "--experts=4", "--seconds=0.4")


def test_figures_of_a_tiny_layer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_measure, "_STREAM_ELEMENTS", 1 << 20)
    assert main([*TINY, "--formats=float32,bfloat16,int8"]) == 0
    captured = capsys.readouterr()
    result: dict[str, Any] = json.loads(captured.out)
    assert (result["device"], result["hidden"], result["expert_width"]) == ("cpu", 64, 32)
    assert min(result["stream_bandwidth"], result["exchange_bandwidth"]) > 1e6
    assert result["memory_bytes"] > 1 << 28
    sizes = {"float32": 4, "bfloat16": 2, "int8": 1}
    scales = {"float32": 0, "bfloat16": 0, "int8": 4 * (2 * 32 + 64)}
    assert list(result["formats"]) == list(sizes)
    for name, size in sizes.items():
        entry = result["formats"][name]
        assert entry["flops"] > 1e6
        assert {point["held_out"] for point in entry["points"]} == {False, True}
        for point in entry["points"]:
            assert point["bytes"] == point["experts"] * (3 * 64 * 32 * size + scales[name])
            assert point["flops"] == point["experts"] * point["rows"] * 6 * 64 * 32
            assert point["seconds"] > 0
    assert "float32: " in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device=cuda",), "'cuda' is not on this machine; use cpu"),
        (("--formats=float8",), "'float8' does not exist; choose one of float32"),
        (("--device=toaster",), "toaster"),
    ],
)
@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_what_cannot_be_measured_is_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_fit_sees_other_sizes_than_the_held_out() -> None:
    points = grid(28)
    seen = {(point.experts, point.rows) for point in points if not point.held_out}
    unseen = {(point.experts, point.rows) for point in points if point.held_out}
    assert seen and unseen and not seen & unseen
    assert max(experts for experts, _ in seen | unseen) == 28
    assert [point.total for point in points] == sorted(point.total for point in points)


def test_calls_take_other_experts_in_turn() -> None:
    taken: list[torch.Tensor] = []

    class Recording:
        def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> torch.Size:
            return gate_up_E2FD.shape

        def __call__(
            self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: torch.Size
        ) -> torch.Tensor:
            assert weights == (8, 6, 4)
            assert rows_RD.shape == (int(counts_E.sum()), 4)
            taken.append(counts_E)
            return rows_RD

    timer = ExpertTimer(Recording(), ExpertShape(4, 3, 8, torch.float32, "float32"), CPU)
    timer.seconds(GridPoint(2, 3, False), 0.01)
    assert all(sorted(counts.tolist()) == [0] * 6 + [3, 3] for counts in taken)
    assert torch.stack(taken[:4]).sum(dim=0).tolist() == [3] * 8


def test_the_median_leaves_out_the_first_call() -> None:
    lengths = iter([200_000, *[1] * 100])

    def work() -> int:
        return sum(range(next(lengths)))

    assert median_seconds(work, CPU, 0.05) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "--hidden is 0; give at least 1"),
        (["--expert-width", "-1"], "--expert-width is -1; give at least 1"),
        (["--threads", "-1"], "--threads is -1; give at least 0"),
        (["--seconds", "nan"], "--seconds is nan; give a time above 0"),
        (
            ["--device", "abacus"],
            "device 'abacus' is not known to this torch; use cpu, cuda or npu",
        ),
        (["--device", "npu"], "device 'npu' needs torch-npu and CANN: No module named 'torch_npu'"),
    ],
)
def test_figures_that_cannot_be_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"calibrate: {message}\n"


def test_a_container_has_what_it_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, unlimited = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text("123456\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(calibrate, "_MEMORY_LIMITS", (unlimited, tmp_path / "none"))
    assert calibrate._memory(CPU) > 123456
    monkeypatch.setattr(calibrate, "_MEMORY_LIMITS", (unlimited, limit))
    assert calibrate._memory(CPU) == 123456
