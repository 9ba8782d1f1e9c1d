"""Measured serving points: typed rows of a CSV file, and what keeps one from prediction."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

_CONCURRENCY = re.compile(r"silicon_concurrency=([^;\s]*)")
# Columns with another name, unit or origin here.
_DERIVED = frozenset({"line", "concurrency", "measured_ttft", "measured_tpot"})
_MODES = ("agg", "disagg")
_WORKERS = ("prefill_num_workers", "decode_num_workers", "prefill_tp_size", "decode_tp_size")


class RowsError(ValueError):
    """A file of measured points that cannot be read: file, line, column, value, what to do."""


class UnpredictableError(ValueError):
    """A row that lacks what a prediction needs, or names a model or system unknown here; the
    message is the reason alone, the same for all rows that share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured point: the columns of the file under their own names, None where empty.

    Attributes:
        line: in the file, the header being line 1.
        mode: `agg`, one kind of worker that does both phases, or `disagg`.
        batch_size: sequences of one attention group; sizes of groups are by worker.
        concurrency: requests in flight over all workers; None where the file does not say.
        measured_ttft: seconds.
        measured_tpot: seconds.
    """

    line: int
    id: str
    silicon_data_source: str
    backend: str
    backend_version: str
    model_path: str
    system: str
    precision: str
    mode: str
    isl: int
    osl: int
    gemm_quant_mode: str
    moe_quant_mode: str
    batch_size: int | None
    tp_size: int | None
    pp_size: int | None
    attention_dp_size: int | None
    moe_tp_size: int | None
    moe_ep_size: int | None
    prefill_batch_size: int | None
    prefill_num_workers: int | None
    prefill_tp_size: int | None
    prefill_pp_size: int | None
    prefill_attention_dp_size: int | None
    prefill_moe_tp_size: int | None
    prefill_moe_ep_size: int | None
    decode_batch_size: int | None
    decode_num_workers: int | None
    decode_tp_size: int | None
    decode_pp_size: int | None
    decode_attention_dp_size: int | None
    decode_moe_tp_size: int | None
    decode_moe_ep_size: int | None
    concurrency: int | None
    measured_ttft: float
    measured_tpot: float

    @property
    def slice(self) -> tuple[str, str, str]:
        """What a table of accuracy is split by: system, model, mode."""
        return self.system, self.model_path, self.mode

    def require_complete(self) -> None:
        """Raise UnpredictableError where the row does not say what was run."""
        if self.concurrency is None:
            raise UnpredictableError("no concurrency")
        if self.mode == "disagg" and any(getattr(self, name) is None for name in _WORKERS):
            raise UnpredictableError("no worker counts")
        if self.mode == "agg" and self.tp_size is None:
            raise UnpredictableError("no tensor-parallel size")


_COLUMN_TYPES = {name: kind for name, kind in get_type_hints(Row).items() if name not in _DERIVED}
_REQUIRED = (*_COLUMN_TYPES, "silicon_ttft_ms", "silicon_tpot_ms")


def read_rows(path: Path) -> tuple[Row, ...]:
    """All rows of a CSV file with silicon_sample.csv's columns; others are left out.

    Raises:
        RowsError: names file, line, column and value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RowsError(f"{path}: cannot be read: {reason}") from error
    rows = tuple(_read(text, path))
    if not rows:
        raise RowsError(f"{path}: holds no rows; give a CSV file with a header and measured points")
    return rows


def _read(text: str, path: Path) -> Iterator[Row]:
    reader = csv.DictReader(text.splitlines(), restkey="")
    missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise RowsError(
            f"{path}: line 1: column {missing[0]!r} is missing ({len(missing)} of "
            f"{len(_REQUIRED)} are); give a file with the columns of silicon_sample.csv"
        )
    for cells in reader:
        if "" in cells or None in cells.values():
            raise RowsError(
                f"{path}: line {reader.line_num}: has not {len(reader.fieldnames or ())} cells as "
                "the header has; quote the cells that hold commas"
            )
        yield _Cells(cells, f"{path}: line {reader.line_num}", reader.line_num).row()


@dataclass(frozen=True, slots=True)
class _Cells:
    cells: Mapping[str, str]
    place: str
    line: int

    def row(self) -> Row:
        columns: dict[str, Any] = {
            name: self.text(name) if kind is str else self.count(name)
            for name, kind in _COLUMN_TYPES.items()
        }
        if columns["mode"] not in _MODES:
            raise self._error("mode", f"one of {', '.join(_MODES)}")
        for name in ("isl", "osl"):
            if columns[name] is None:
                raise self._error(name, "a number of tokens")
        return Row(
            line=self.line,
            **columns,
            concurrency=self._concurrency(columns),
            measured_ttft=self.milliseconds("silicon_ttft_ms") / 1000,
            measured_tpot=self.milliseconds("silicon_tpot_ms") / 1000,
        )

    def text(self, name: str) -> str:
        return self.cells[name].strip()

    def count(self, name: str) -> int | None:
        """A whole number, also as `4.0`; None where the cell is empty."""
        text = self.text(name)
        if not text:
            return None
        number = self._number(name, "a whole number above 0")
        if number < 1 or number != int(number):
            raise self._error(name, "a whole number above 0")
        return int(number)

    def milliseconds(self, name: str) -> float:
        number = self._number(name, "milliseconds above 0")
        if number <= 0:
            raise self._error(name, "milliseconds above 0")
        return number

    def _concurrency(self, columns: Mapping[str, Any]) -> int | None:
        """As the source says, else all sequences of all attention groups together."""
        found = _CONCURRENCY.search(columns["silicon_data_source"])
        if found:
            if not found[1].isdecimal() or int(found[1]) < 1:
                raise self._error("silicon_data_source", "silicon_concurrency=N with N above 0")
            return int(found[1])
        if columns["mode"] == "agg" and columns["batch_size"]:
            return int(columns["batch_size"] * (columns["attention_dp_size"] or 1))
        if columns["decode_batch_size"] and columns["decode_num_workers"]:
            groups = columns["decode_num_workers"] * (columns["decode_attention_dp_size"] or 1)
            return int(columns["decode_batch_size"] * groups)
        return None

    def _number(self, name: str, expected: str) -> float:
        try:
            number = float(self.text(name))
        except ValueError:
            raise self._error(name, expected) from None
        if not math.isfinite(number):
            raise self._error(name, expected)
        return number

    def _error(self, name: str, expected: str) -> RowsError:
        return RowsError(
            f"{self.place}: column {name}: must be {expected}, found {self.cells[name]!r}"
        )
