"""What is shown while weights load."""

import io
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.progress import TenthsLogger, count_bytes_to_read, show_progress


def test_bar_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with show_progress(4 * 2**20, visible=True, console=console) as progress:
        progress(2**20)
    assert "loading weights" in console.file.getvalue()
    assert "4.0/4.0 MiB" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds_per_read", "tenths"),
    [(1.0, range(10, 101, 10)), (0.1, [40, 80]), (0.01, []), (0.14, [30, 60, 90])],
)
def test_log_lines_elsewhere_are_at_tenths_and_two_seconds_apart(
    caplog: pytest.LogCaptureFixture, seconds_per_read: float, tenths: Iterable[int]
) -> None:
    now = 0.0
    with caplog.at_level(logging.INFO):
        progress = TenthsLogger(1000, clock=lambda: now)
        for number in range(1, 51):
            now = seconds_per_read * number
            progress(20)
    assert caplog.messages == [f"loading weights: {tenth} % of 0.00 GiB" for tenth in tenths]


def test_a_small_model_loads_without_a_line(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with (
        caplog.at_level(logging.INFO),
        show_progress(1000, visible=True, console=console) as progress,
    ):
        for _ in range(50):
            progress(20)
    assert caplog.messages == []
    assert console.file.getvalue() == ""


def test_nothing_where_invisible(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with (
        caplog.at_level(logging.INFO),
        show_progress(10, visible=False, console=console) as progress,
    ):
        progress(10)
    assert not caplog.records
    assert console.file.getvalue() == ""


def test_counts_the_names_that_a_rank_reads(write: Callable[..., Path]) -> None:
    names = {
        "model.embed_tokens.weight": 1,
        "model.layers.0.mlp.up_proj.weight": 2,
        "model.layers.1.mlp.gate.weight": 4,
        "model.layers.1.mlp.experts.0.up_proj.weight": 8,
        "model.layers.1.mlp.experts.1.up_proj.weight": 16,
        "model.layers.1.mlp.experts.10.up_proj.weight": 32,
        "model.layers.2.mlp.experts.1.up_proj.weight": 64,
        "model.layers.2.embed_tokens.weight": 128,
    }
    tensors = {name: torch.zeros(size).half() for name, size in names.items()}
    checkpoint = Checkpoint.open(write({"model.safetensors": tensors}))
    assert count_bytes_to_read(checkpoint, {1: (1,)}, 2) == 2 * (1 + 2 + 4 + 16)
    assert count_bytes_to_read(checkpoint, {1: (0, 10)}, 2) == 2 * (1 + 2 + 4 + 8 + 32)
    assert count_bytes_to_read(checkpoint, {1: (), 2: (1,)}, 3) == 2 * (1 + 2 + 4 + 64 + 128)
