import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from moe_placement.cost.coefficients import (
    Coefficients,
    CoefficientsError,
    Provenance,
    load_coefficients,
    load_provenance,
    save_coefficients,
)

PROVENANCE = Provenance(sha256="ab", num_rows=3, date="2026-01-01", command="fit")


def test_there_are_at_most_forty_and_each_says_what_it_is() -> None:
    entries = fields(Coefficients)
    assert len(entries) <= 40
    for entry in entries:
        assert entry.metadata["unit"] and entry.metadata["meaning"]
        assert entry.metadata["low"] <= entry.default <= entry.metadata["high"]


def test_the_shipped_ones_are_within_their_bounds_and_say_what_they_were_fitted_to() -> None:
    values = asdict(load_coefficients())
    for entry in fields(Coefficients):
        assert entry.metadata["low"] <= values[entry.name] <= entry.metadata["high"]
    provenance = load_provenance()
    assert len(provenance.sha256) == 64
    assert provenance.num_rows > 900


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    saved = Coefficients(weight_read=0.5, poll_vllm=7.25)
    save_coefficients(path, saved, PROVENANCE)
    assert load_coefficients(path) == saved
    assert load_provenance(path) == PROVENANCE


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("weight_read", None, "weight_read is missing"),
        ("surprise", {"value": 1.0}, "surprise is unknown"),
        ("weight_read", {"value": "fast"}, "weight_read must be a number, found 'fast'"),
    ],
)
def test_a_wrong_file_is_refused_by_name(
    tmp_path: Path, name: str, entry: dict[str, object] | None, message: str
) -> None:
    path = tmp_path / "own.json"
    save_coefficients(path, Coefficients(), PROVENANCE)
    content = json.loads(path.read_text())
    content["coefficients"].pop(name, None)
    if entry is not None:
        content["coefficients"][name] = entry
    path.write_text(json.dumps(content))
    with pytest.raises(CoefficientsError, match=message) as error:
        load_coefficients(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_file_of_coefficients_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text("[]")
    with pytest.raises(CoefficientsError, match="is not a file of coefficients"):
        load_coefficients(path)
