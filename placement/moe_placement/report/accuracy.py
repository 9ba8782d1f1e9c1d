"""How right the predictions are: tables by slice, beside baselines, and the page of both."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from moe_placement.accuracy.evaluate import Accuracy, Predicted, accuracy_by, accuracy_of
from moe_placement.accuracy.selection import Selection
from moe_placement.cost.coefficients import Coefficients, Provenance
from moe_placement.report.table import Table

_FIGURES = (
    *("n", "TTFT error", "TTFT predicted / measured"),
    *("TPOT error", "TPOT predicted / measured"),
)
_ERRORS = "Errors are medians of the absolute percentage error, ratios medians too."


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What `moe_plan validate` found.

    Attributes:
        command: that makes it again.
        sha256: of the file.
        predicted: all predictable rows, by the coefficients in use.
        methods: predictions of folds, by how the folds are made and by method, ours first; a
            text where a method could not run.
    """

    command: str
    file: str
    sha256: str
    selection: Selection
    predicted: tuple[Predicted, ...]
    provenance: Provenance
    coefficients: Coefficients
    methods: Mapping[str, Mapping[str, tuple[Predicted, ...] | str]]


def tables(validation: Validation) -> list[Table]:
    """All methods where folds were predicted, then by slice, then what has no prediction."""
    found = [method_table(folds, methods) for folds, methods in validation.methods.items()]
    found.append(slice_table("By slice, with the coefficients in use", validation.predicted))
    for folds, methods in validation.methods.items():
        ours = next(iter(methods.values()))
        if not isinstance(ours, str):
            found.append(slice_table(f"By slice, our model fitted by {folds}", ours))
    return [*found, reasons_table(validation.selection)]


def slice_table(title: str, predicted: Sequence[Predicted]) -> Table:
    """One row for each system, model and mode, then one for each mode."""
    slices = accuracy_by(predicted, lambda row: row.slice)
    modes = accuracy_by(predicted, lambda row: ("all", "all", row.mode))
    return Table(
        title,
        ("system", "model", "mode", *_FIGURES),
        tuple((*key, *_figures(found)) for key, found in (slices | modes).items()),
        note=_ERRORS,
        num_names=3,
    )


def reasons_table(selection: Selection) -> Table:
    return Table(
        f"Rows without a prediction: {len(selection.unpredictable)} of {selection.num_rows}",
        ("mode", "reason", "rows"),
        tuple((mode, why, str(count)) for (mode, why), count in selection.reasons().items()),
        num_names=2,
    )


def method_table(folds: str, methods: Mapping[str, tuple[Predicted, ...] | str]) -> Table:
    """One row for each method and mode, on the same folds."""
    rows: list[tuple[str, ...]] = []
    for name, predicted in methods.items():
        if isinstance(predicted, str):
            rows.append((name, f"not run: {predicted}", *[""] * len(_FIGURES)))
            continue
        modes = accuracy_by(predicted, lambda row: (row.mode,))
        rows += [(name, mode, *_figures(found)) for (mode,), found in modes.items()]
        rows.append((name, "all", *_figures(accuracy_of(predicted))))
    return Table(
        f"Fitted by {folds}", ("method", "mode", *_FIGURES), tuple(rows), _ERRORS, num_names=2
    )


def page(validation: Validation) -> str:
    """docs/accuracy.md."""
    count = len(asdict(validation.coefficients))
    provenance = validation.provenance
    head = (
        "# How right the predictions are\n\n"
        f"Made by `{validation.command}`; do not edit.\n\n"
        f"`{validation.file}` (sha256 `{validation.sha256[:16]}...`) has "
        f"{validation.selection.num_rows} measured rows; {len(validation.predicted)} can be "
        f"predicted. The model has {count} coefficients, listed at the end, and none of a row, a "
        f"model or a configuration. Those shipped were fitted to {provenance.num_rows} rows of a "
        f"file with sha256 `{provenance.sha256[:16]}...` on {provenance.date} by "
        f"`{provenance.command}`.\n"
    )
    sections = "\n\n".join(table.markdown() for table in tables(validation))
    return f"{head}\n{sections}\n\n{coefficients_table(validation.coefficients).markdown()}\n"


def coefficients_table(coefficients: Coefficients) -> Table:
    rows = tuple(
        (
            entry.name,
            entry.metadata["unit"],
            entry.metadata["meaning"],
            f"{getattr(coefficients, entry.name):.4g}",
        )
        for entry in fields(coefficients)
    )
    return Table("Coefficients", ("name", "unit", "meaning", "value"), rows, num_names=3)


def as_json(validation: Validation) -> dict[str, Any]:
    """For machines: figures as shares and ratios, one entry for each slice and method."""
    return {
        "command": validation.command,
        "file": validation.file,
        "sha256": validation.sha256,
        "num_rows": validation.selection.num_rows,
        "num_predicted": len(validation.predicted),
        "unpredictable": [
            {"mode": mode, "reason": reason, "num_rows": count}
            for (mode, reason), count in validation.selection.reasons().items()
        ],
        "slices": _slices(validation.predicted),
        "folds": {
            folds: {
                name: {"not_run": found}
                if isinstance(found, str)
                else {"modes": _modes(found), "slices": _slices(found)}
                for name, found in methods.items()
            }
            for folds, methods in validation.methods.items()
        },
        "coefficients": asdict(validation.coefficients),
        "provenance": asdict(validation.provenance),
    }


def _slices(predicted: Sequence[Predicted]) -> list[dict[str, Any]]:
    return [
        {"system": system, "model": model, "mode": mode, **asdict(found)}
        for (system, model, mode), found in accuracy_by(predicted, lambda row: row.slice).items()
    ]


def _modes(predicted: Sequence[Predicted]) -> dict[str, Any]:
    modes = {
        mode: asdict(found)
        for (mode,), found in accuracy_by(predicted, lambda row: (row.mode,)).items()
    }
    return {**modes, "all": asdict(accuracy_of(predicted))}


def _figures(found: Accuracy) -> tuple[str, ...]:
    return (
        str(found.num_rows),
        f"{found.ttft_error:.1%}",
        f"{found.ttft_ratio:.2f}",
        f"{found.tpot_error:.1%}",
        f"{found.tpot_ratio:.2f}",
    )
