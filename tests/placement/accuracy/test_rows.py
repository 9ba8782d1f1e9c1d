"""Rows of a file, typed; what is wrong is named by file, line, column and value."""

from collections.abc import Callable
from pathlib import Path

import pytest
from moe_placement.accuracy.rows import RowsError, UnpredictableError, read_rows
from moe_placement.accuracy.selection import select

Cells = dict[str, str]
Write = Callable[..., Path]


def test_a_row_has_its_columns_typed_and_its_times_in_seconds(
    write: Write, aggregated: Cells
) -> None:
    (row,) = read_rows(write(aggregated))
    assert (row.line, row.id, row.mode, row.isl, row.osl) == (2, "row0", "agg", 1024, 512)
    assert (row.tp_size, row.moe_ep_size, row.prefill_num_workers) == (4, 4, None)
    assert (row.concurrency, row.measured_ttft, row.measured_tpot) == (16, 0.1205, 0.0095)
    assert row.slice == ("h200_sxm", "Qwen/Qwen3-30B-A3B", "agg")


def test_whole_numbers_may_be_written_as_floats_and_cells_may_hold_commas(
    write: Write, aggregated: Cells
) -> None:
    cells = {**aggregated, "tp_size": "4.0", "silicon_data_source": "a, b; silicon_concurrency=3"}
    (row,) = read_rows(write(cells))
    assert (row.tp_size, row.concurrency) == (4, 3)


def test_without_a_concurrency_batches_add_up(
    write: Write, aggregated: Cells, disaggregated: Cells
) -> None:
    silent = {"silicon_data_source": "a file"}
    groups = {**aggregated, **silent, "attention_dp_size": "8"}
    workers = {**disaggregated, **silent, "decode_batch_size": "10"}
    none = {**disaggregated, **silent}
    found = [row.concurrency for row in read_rows(write(groups, workers, none))]
    assert found == [8 * 16, 2 * 10, None]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"isl": ""}, "line 3: column isl: must be a number of tokens, found ''"),
        ({"isl": "many"}, "column isl: must be a whole number above 0, found 'many'"),
        ({"tp_size": "2.5"}, "column tp_size: must be a whole number above 0, found '2.5'"),
        ({"tp_size": "0"}, "column tp_size: must be a whole number above 0, found '0'"),
        ({"mode": "both"}, "column mode: must be one of agg, disagg, found 'both'"),
        ({"silicon_ttft_ms": ""}, "column silicon_ttft_ms: must be milliseconds above 0"),
        ({"silicon_tpot_ms": "-1"}, "column silicon_tpot_ms: must be milliseconds above 0"),
        ({"silicon_tpot_ms": "nan"}, "column silicon_tpot_ms: must be milliseconds above 0"),
        (
            {"silicon_data_source": "silicon_concurrency=few;"},
            "column silicon_data_source: must be silicon_concurrency=N with N above 0",
        ),
    ],
)
def test_a_wrong_cell_is_named(write: Write, aggregated: Cells, change: Cells, said: str) -> None:
    path = write(aggregated, {**aggregated, **change})
    with pytest.raises(RowsError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: line 3: ")
    assert said in str(caught.value)


def test_what_is_no_such_file_is_refused(write: Write, aggregated: Cells, tmp_path: Path) -> None:
    with pytest.raises(RowsError, match=r"column 'system' is missing \(1 of 34 are\)"):
        read_rows(write(aggregated, without="system"))
    with pytest.raises(RowsError, match=r"none\.csv: cannot be read: No such file"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(RowsError, match="holds no rows"):
        read_rows(write())
    short = write(aggregated)
    short.write_text(short.read_text() + "a,b\n")
    with pytest.raises(RowsError, match=r"line 3: has not 34 cells"):
        read_rows(short)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(RowsError, match="not UTF-8"):
        read_rows(binary)


def test_a_row_that_does_not_say_what_was_run_has_a_reason(
    write: Write, aggregated: Cells, disaggregated: Cells
) -> None:
    incomplete = {**disaggregated, "prefill_num_workers": ""}
    silent = {**disaggregated, "silicon_data_source": ""}
    whole, missing, quiet = read_rows(write(disaggregated, incomplete, silent))
    whole.require_complete()
    with pytest.raises(UnpredictableError, match=r"^no worker counts$"):
        missing.require_complete()
    with pytest.raises(UnpredictableError, match=r"^no concurrency$"):
        quiet.require_complete()


def test_rows_are_sorted_out_by_reason(
    write: Write, aggregated: Cells, disaggregated: Cells
) -> None:
    rows = read_rows(
        write(
            aggregated,
            disaggregated,
            {**disaggregated, "decode_num_workers": ""},
            {**disaggregated, "prefill_num_workers": ""},
            {**aggregated, "system": "abacus"},
            {**aggregated, "model_path": "nobody/knows-it"},
        )
    )
    selection = select(rows)
    assert selection.predictable == rows[:2]
    assert selection.num_rows == 6
    reasons = selection.reasons()
    assert next(iter(reasons.items())) == (("disagg", "no worker counts"), 2)
    assert sorted(reasons.values()) == [1, 1, 2]
    assert any("abacus" in reason for _, reason in reasons)
    assert any("nobody/knows-it" in reason for _, reason in reasons)
