"""Predict each row of a file of measured points, and say how right the predictions are."""

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moe_placement.cli.parser import UsageError

if TYPE_CHECKING:
    from moe_placement.accuracy.evaluate import Learner, Predicted, Predictor
    from moe_placement.accuracy.folds import Fold
    from moe_placement.accuracy.rows import Row
    from moe_placement.cli.parser import Subparsers
    from moe_placement.cost.coefficients import Coefficients
    from moe_placement.report.accuracy import Validation

_SHIPPED = "shipped"
_SEED = 0


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("validate", help=__doc__, description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV of measured points")
    parser.add_argument(
        "--coefficients", default=_SHIPPED, metavar="FILE", help="of the cost model; shipped"
    )
    parser.add_argument(
        "--cross-validate",
        action="store_true",
        help="fit anew for each of 5 folds over configurations and for each system left out, "
        "beside a nearest-neighbour and a boosted-trees baseline; takes minutes",
    )
    parser.add_argument("--fit", action="store_true", help="fit to all rows; needs --output")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where --fit writes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write a Markdown page")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the tables; the exit code."""
    if options.fit != bool(options.output):
        raise UsageError("--fit and --output FILE go together; give both")
    for option in ("report", "output"):
        path = getattr(options, option)
        if path and not path.parent.is_dir():
            raise UsageError(f"--{option} {path}: there is no folder {path.parent}; make it first")
    from moe_placement.report.accuracy import as_json, page

    validation = _validation(options)
    if options.json:
        print(json.dumps(as_json(validation), indent=2))
    else:
        _print(validation)
    if options.report:
        options.report.write_text(page(validation), encoding="utf-8")
    return 0


def _validation(options: argparse.Namespace) -> "Validation":
    from hashlib import sha256

    from moe_placement.accuracy.evaluate import predict_all
    from moe_placement.accuracy.rows import read_rows
    from moe_placement.accuracy.selection import select
    from moe_placement.cost.coefficients import load_coefficients, load_provenance
    from moe_placement.report.accuracy import Validation

    selection = select(read_rows(options.file))
    if not selection.predictable:
        reason = next(iter(selection.reasons()))[1]
        raise UsageError(f"{options.file}: no row can be predicted, most have {reason}")
    digest = sha256(options.file.read_bytes()).hexdigest()
    if options.fit:
        _fit(options, selection.predictable, digest)
    path = options.output
    if path is None and options.coefficients != _SHIPPED:
        path = Path(options.coefficients)
    coefficients = load_coefficients(path)
    return Validation(
        command=_command(options),
        file=options.file.name,
        sha256=digest,
        selection=selection,
        predicted=predict_all(selection.predictable, _predictor(coefficients)),
        provenance=load_provenance(path),
        coefficients=coefficients,
        methods=_methods(selection.predictable) if options.cross_validate else {},
    )


def _predictor(coefficients: "Coefficients") -> "Predictor":
    from moe_placement.accuracy.predict import predict_stacks, stack_rows

    def predict(rows: "Sequence[Row]") -> list[tuple[float, float]]:
        ttft, tpot = predict_stacks(stack_rows(rows), coefficients)
        return list(zip(ttft.tolist(), tpot.tolist(), strict=True))

    return predict


def _fit(options: argparse.Namespace, rows: "Sequence[Row]", digest: str) -> None:
    from datetime import UTC, datetime

    from moe_placement.accuracy.fit import fit
    from moe_placement.cli.console import progress
    from moe_placement.cost.coefficients import Coefficients, Provenance, save_coefficients

    with progress(f"fitting to {len(rows)} rows"):
        fitted = fit(rows, start=Coefficients(), seed=_SEED)
    day = datetime.now(UTC).date().isoformat()
    provenance = Provenance(sha256=digest, num_rows=len(rows), date=day, command=_command(options))
    save_coefficients(options.output, fitted, provenance)


def _methods(rows: "Sequence[Row]") -> "dict[str, dict[str, tuple[Predicted, ...] | str]]":
    from moe_placement.accuracy.baselines import boosted_trees, nearest_neighbour
    from moe_placement.accuracy.fit import fit
    from moe_placement.accuracy.folds import configuration_folds, system_folds
    from moe_placement.cli.console import progress
    from moe_placement.cost.coefficients import Coefficients

    learners: dict[str, Learner] = {
        "mechanisms (this model)": lambda train: _predictor(
            fit(train, start=Coefficients(), seed=_SEED)
        ),
        "nearest neighbour": nearest_neighbour,
        "boosted trees": boosted_trees,
    }
    kinds = {
        "5-fold cross-validation over configurations": configuration_folds(rows),
        "leaving one system out": system_folds(rows),
    }
    found: dict[str, dict[str, tuple[Predicted, ...] | str]] = {}
    with progress("cross-validating") as tell:
        for kind, folds in kinds.items():
            found[kind] = {
                name: _cross_validated(folds, learner, partial(tell, f"{name}, {kind}"))
                for name, learner in learners.items()
            }
    return found


def _cross_validated(
    folds: "Sequence[Fold]", learner: "Learner", tell: Callable[[int, int], None]
) -> "tuple[Predicted, ...] | str":
    from moe_placement.accuracy.baselines import MissingPackageError
    from moe_placement.accuracy.evaluate import cross_validate

    try:
        return cross_validate(folds, learner, tell)
    except MissingPackageError as error:
        return str(error)


def _print(validation: "Validation") -> None:
    from moe_placement.cli.console import print_table
    from moe_placement.report.accuracy import tables

    selection = validation.selection
    print(
        f"{validation.file}  sha256 {validation.sha256[:16]}  {selection.num_rows} rows, "
        f"{len(selection.predictable)} predicted, {len(selection.unpredictable)} not"
    )
    for table in tables(validation):
        print_table(table)


def _command(options: argparse.Namespace) -> str:
    """The command that makes the same again."""
    words = ["moe_plan", "validate", options.file.name]
    if options.coefficients != _SHIPPED:
        words += ["--coefficients", options.coefficients]
    words += ["--cross-validate"] * options.cross_validate
    if options.fit:
        words += ["--fit", "--output", options.output.name]
    if options.report:
        words += ["--report", str(options.report)]
    return shlex.join(words)
