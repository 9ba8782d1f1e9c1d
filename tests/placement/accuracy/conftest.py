"""Measured rows made up here: a file with all columns, and rows of it."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from moe_placement.accuracy.rows import Row, read_rows

NOT_COLUMNS = {"line", "concurrency", "measured_ttft", "measured_tpot"}
COLUMNS = [field.name for field in fields(Row) if field.name not in NOT_COLUMNS]
COLUMNS += ["silicon_ttft_ms", "silicon_tpot_ms"]
AGGREGATED = {
    "silicon_data_source": "made up; silicon_concurrency=16; more",
    "backend": "vllm",
    "backend_version": "1.0",
    "model_path": "Qwen/Qwen3-30B-A3B",
    "system": "h200_sxm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "512",
    "gemm_quant_mode": "fp8",
    "moe_quant_mode": "fp8",
    "batch_size": "16",
    "tp_size": "4",
    "pp_size": "1",
    "attention_dp_size": "1",
    "moe_tp_size": "1",
    "moe_ep_size": "4",
    "silicon_ttft_ms": "120.5",
    "silicon_tpot_ms": "9.5",
}
DISAGGREGATED = {
    **{name: value for name, value in AGGREGATED.items() if not name.endswith("_size")},
    "mode": "disagg",
    **{f"{phase}_num_workers": "2" for phase in ("prefill", "decode")},
    **{f"{phase}_tp_size": "4" for phase in ("prefill", "decode")},
    **{f"{phase}_moe_ep_size": "4" for phase in ("prefill", "decode")},
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of these rows, each given by its cells; cells that are not given are empty."""

    def write_rows(*rows: Mapping[str, str], without: str = "") -> Path:
        columns = [name for name in COLUMNS if name != without]
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            for number, row in enumerate(rows):
                writer.writerow({"id": f"row{number}", **row})
        return path

    return write_rows


@pytest.fixture
def aggregated() -> dict[str, str]:
    return dict(AGGREGATED)


@pytest.fixture
def disaggregated() -> dict[str, str]:
    return dict(DISAGGREGATED)


@pytest.fixture
def many(write: Write) -> tuple[Row, ...]:
    """Twelve configurations on two systems, each at four loads."""
    cells = [
        {
            **AGGREGATED,
            "system": system,
            "isl": str(prompt),
            "tp_size": str(tensor),
            "batch_size": str(clients),
            "silicon_data_source": f"silicon_concurrency={clients}",
            "silicon_ttft_ms": str(prompt / 20 + clients),
            "silicon_tpot_ms": str(20 / tensor + clients / 10),
        }
        for system in ("h200_sxm", "b200_sxm")
        for prompt in (1024, 2048, 8192)
        for tensor in (2, 4)
        for clients in (4, 16, 64, 256)
    ]
    return read_rows(write(*cells))
