"""`moe_plan validate`: slices, reasons, folds beside baselines, fits, and the page."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from moe_placement.accuracy.baselines import nearest_neighbour
from moe_placement.accuracy.rows import Row
from moe_placement.cost.coefficients import Coefficients, load_coefficients, load_provenance

Run = Callable[..., Any]
COLUMNS = [
    field.name
    for field in fields(Row)
    if field.name not in {"line", "concurrency", "measured_ttft", "measured_tpot"}
]
CELLS = {
    "id": "a",
    "backend": "vllm",
    "model_path": "Qwen/Qwen3-30B-A3B",
    "precision": "fp8",
    "mode": "agg",
    "osl": "512",
    "pp_size": "1",
    "moe_tp_size": "1",
}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Six configurations on two systems, and one row that says too little."""
    path = tmp_path / "measured.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "silicon_ttft_ms", "silicon_tpot_ms"])
        writer.writeheader()
        for system in ("h200_sxm", "b200_sxm"):
            for prompt in (1024, 2048, 8192):
                for clients in (4, 64):
                    writer.writerow(
                        {
                            **CELLS,
                            "system": system,
                            "isl": prompt,
                            "silicon_data_source": f"silicon_concurrency={clients}",
                            "batch_size": clients,
                            "tp_size": 4,
                            "moe_ep_size": 4,
                            "silicon_ttft_ms": prompt / 10,
                            "silicon_tpot_ms": 10 + clients / 10,
                        }
                    )
        writer.writerow(
            {
                **CELLS,
                "mode": "disagg",
                "system": "h200_sxm",
                "isl": 1024,
                "silicon_data_source": "silicon_concurrency=9",
                "silicon_ttft_ms": 100,
                "silicon_tpot_ms": 10,
            }
        )
    return path


@pytest.fixture
def quick_fit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A fit that remembers how many rows it was given, and gives the priors."""
    seen: list[int] = []

    def fit(rows: Sequence[Row], *, start: Coefficients, seed: int) -> Coefficients:
        seen.append(len(rows))
        return start

    monkeypatch.setattr("moe_placement.accuracy.fit.fit", fit)
    return seen


def test_slices_and_reasons_are_printed(run: Run, measured: Path) -> None:
    done = run("validate", measured)
    assert (done.code, done.err) == (0, "")
    assert "13 rows, 12 predicted, 1 not" in done.out
    for words in (
        ("b200_sxm", "Qwen/Qwen3-30B-A3B", "agg", "6"),
        ("h200_sxm", "Qwen/Qwen3-30B-A3B", "agg", "6"),
        ("all", "all", "agg", "12"),
        ("disagg", "no worker counts", "1"),
    ):
        assert any(all(word in line for word in words) for line in done.out.splitlines()), words


def test_json_has_the_same_figures(run: Run, measured: Path) -> None:
    found = json.loads(run("validate", measured, "--json").out)
    assert (found["num_rows"], found["num_predicted"]) == (13, 12)
    assert found["unpredictable"] == [
        {"mode": "disagg", "reason": "no worker counts", "num_rows": 1}
    ]
    assert [entry["system"] for entry in found["slices"]] == ["b200_sxm", "h200_sxm"]
    for entry in found["slices"]:
        assert entry["num_rows"] == 6
        assert entry["tpot_ratio"] > 0
        assert abs(entry["tpot_ratio"] - 1) <= 10 * entry["tpot_error"] + 1
    assert found["folds"] == {}
    assert 0 < len(found["coefficients"]) <= 40


def test_cross_validation_sets_ours_beside_baselines_on_the_same_folds(
    run: Run,
    measured: Path,
    quick_fit: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Trees take seconds; they have tests of their own.
    monkeypatch.setattr("moe_placement.accuracy.baselines.boosted_trees", nearest_neighbour)
    page = tmp_path / "accuracy.md"
    found = json.loads(
        run("validate", measured, "--cross-validate", "--json", "--report", page).out
    )
    # Five folds over six configurations, then each of two systems left out.
    assert sorted(quick_fit) == [6, 6, 8, 10, 10, 10, 10]
    assert list(found["folds"]) == [
        "5-fold cross-validation over configurations",
        "leaving one system out",
    ]
    for methods in found["folds"].values():
        assert list(methods) == ["mechanisms (this model)", "nearest neighbour", "boosted trees"]
        assert {found["modes"]["all"]["num_rows"] for found in methods.values()} == {12}
    text = page.read_text()
    command = f"moe_plan validate measured.csv --cross-validate --report {page}"
    assert f"Made by `{command}`" in text
    assert found["sha256"][:16] in text
    assert "| nearest neighbour | agg | 12 |" in text
    assert "**Fitted by leaving one system out**" in text


def test_a_baseline_that_is_not_installed_says_how_to_install_it(
    run: Run,
    measured: Path,
    quick_fit: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    done = run("validate", measured, "--cross-validate")
    assert done.code == 0
    assert "not run: pip install moe-serve[accuracy]" in done.out


def test_a_fit_is_saved_with_its_provenance_and_used(
    run: Run, measured: Path, quick_fit: list[int], tmp_path: Path
) -> None:
    output = tmp_path / "fitted.json"
    done = run("validate", measured, "--fit", "--output", output)
    assert (done.code, done.err) == (0, "")
    assert quick_fit == [12]
    assert load_coefficients(output) == Coefficients()
    provenance = load_provenance(output)
    assert provenance.num_rows == 12
    assert provenance.command == "moe_plan validate measured.csv --fit --output fitted.json"
    again = run("validate", measured, "--coefficients", output)
    assert again.out == done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fit",), "--fit and --output FILE go together; give both"),
        (("--output", "x.json"), "--fit and --output FILE go together; give both"),
        (("--coefficients", "none.json"), "none.json"),
        (("--report", "nowhere/a.md"), "--report nowhere/a.md: there is no folder nowhere"),
        (("--fit", "--output", "nowhere/a.json"), "there is no folder nowhere; make it first"),
        (("--colour",), "unrecognized arguments: --colour; see moe_plan --help"),
    ],
)
def test_wrong_options_are_one_line(
    refuse: Callable[..., str], measured: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refuse("validate", measured, *words)


def test_a_file_without_a_predictable_row_is_refused(
    refuse: Callable[..., str], measured: Path
) -> None:
    lines = measured.read_text().splitlines()
    measured.write_text("\n".join([lines[0], lines[-1]]) + "\n")
    assert refuse("validate", measured).endswith(
        "no row can be predicted, most have no worker counts"
    )
