from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from moe_placement.accuracy.deployment import deployment, parallelism_of
from moe_placement.accuracy.predict import predict_row, predict_stacks, stack_rows
from moe_placement.accuracy.rows import Row, UnpredictableError, read_rows
from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.parallelism import Parallelism

Write = Callable[..., Path]
Cells = dict[str, str]


@pytest.fixture
def row(write: Write, aggregated: Cells) -> Row:
    return read_rows(write(aggregated))[0]


@pytest.fixture
def apart(write: Write, disaggregated: Cells) -> Row:
    return read_rows(write(disaggregated))[0]


def test_rows_together_are_predicted_as_each_alone(
    many: tuple[Row, ...], row: Row, apart: Row
) -> None:
    rows = [apart, *many, row]
    ttft, tpot = predict_stacks(stack_rows(rows), Coefficients())
    for place, each in enumerate(rows):
        alone = predict_row(each, Coefficients())
        assert alone == pytest.approx((ttft[place], tpot[place]), rel=1e-12)


def test_load_and_length_lengthen_and_bandwidth_shortens(row: Row) -> None:
    ttft, tpot = predict_row(row, Coefficients())
    busier = predict_row(replace(row, concurrency=256, batch_size=256), Coefficients())
    assert busier[0] > ttft and busier[1] > tpot
    longer = predict_row(replace(row, isl=8192), Coefficients())
    assert longer[0] > ttft and longer[1] > tpot
    assert predict_row(replace(row, system="b200_sxm"), Coefficients())[1] < tpot
    assert predict_row(replace(row, system="h100_sxm"), Coefficients())[1] > tpot


def test_prefill_of_its_own_keeps_steps_short(row: Row, apart: Row) -> None:
    alike = replace(apart, isl=8192, concurrency=128, decode_num_workers=2)
    together = predict_row(replace(row, isl=8192, concurrency=64, batch_size=64), Coefficients())
    assert predict_row(alike, Coefficients())[1] < together[1]
    more = predict_row(replace(alike, prefill_num_workers=8), Coefficients())
    assert more[0] < predict_row(alike, Coefficients())[0]


def test_a_cache_that_is_too_small_makes_first_tokens_late(row: Row) -> None:
    crowd = replace(
        row, isl=8192, osl=8192, concurrency=128, batch_size=128, tp_size=1, moe_ep_size=1
    )
    late, _ = predict_row(crowd, Coefficients())
    roomy, _ = predict_row(replace(crowd, system="b300_sxm"), Coefficients())
    assert late > 30 > 3 * roomy


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((8, 1, 1, 8), (8, 1, 8, 1)),
        ((64, 1, 8, 8), (8, 1, 8, 1)),
        ((1, 64, 8, 8), (1, 8, 8, 1)),
        ((4, 4, 1, 16), (4, 1, 4, 1)),
        ((4, 1, 2, 2), (2, 1, 2, 1)),
        ((8, 1, 2, 4), (8, 1, 4, 2)),
        ((2, None, 4, 1), (2, 2, 1, 4)),
        ((1, 16, 1, 16), (1, 16, 16, 1)),
        ((4, 1, 1, 1), (4, 1, 1, 4)),
    ],
)
def test_degrees_are_of_the_devices_that_there_were(
    row: Row, degrees: tuple[int | None, ...], expected: tuple[int, ...]
) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    found = parallelism_of(replace(row, **dict(zip(names, degrees, strict=True))))  # type: ignore[arg-type]
    tensor, data, expert, expert_tensor = expected
    assert found == Parallelism(
        tensor_parallel=tensor,
        data_parallel=data,
        expert_parallel=expert,
        expert_tensor_parallel=expert_tensor,
    )


def test_a_dense_model_has_no_expert_degrees(row: Row) -> None:
    dense = replace(row, tp_size=2, moe_tp_size=1, moe_ep_size=1)
    assert parallelism_of(dense, has_experts=False) == Parallelism(
        tensor_parallel=2, expert_tensor_parallel=2
    )


def test_benchmarks_that_draw_lengths_have_shorter_ones_in_the_mean(row: Row) -> None:
    assert deployment(row).request.prompt == pytest.approx(0.9 * 1024)
    assert deployment(replace(row, isl=1000)).request.prompt == 1000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"concurrency": None}, "no concurrency"),
        ({"system": "abacus"}, "unknown system abacus"),
        ({"model_path": "none/such"}, "unknown model none/such"),
        ({"precision": "fp3"}, "unknown precision fp3"),
    ],
)
def test_a_row_that_cannot_be_predicted_says_why(
    row: Row, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(UnpredictableError, match=reason):
        predict_row(replace(row, **changes), Coefficients())  # type: ignore[arg-type]


def test_workers_that_are_not_counted_cannot_be_predicted(apart: Row) -> None:
    with pytest.raises(UnpredictableError, match="no worker counts"):
        predict_row(replace(apart, decode_num_workers=None), Coefficients())


def test_batches_that_do_not_make_up_the_clients_are_of_several_workers(row: Row) -> None:
    dense = replace(row, attention_dp_size=1, batch_size=13, concurrency=13 * 32)
    assert deployment(dense).clients == 13
    assert deployment(replace(dense, concurrency=13)).clients == 13
    assert deployment(replace(dense, concurrency=20)).clients == 20


def test_a_batch_for_each_device_is_attention_split_by_data(row: Row) -> None:
    split = replace(
        row,
        tp_size=8,
        attention_dp_size=None,
        moe_tp_size=2,
        moe_ep_size=4,
        batch_size=12,
        concurrency=96,
    )
    assert parallelism_of(split).data_parallel == 8
    assert parallelism_of(replace(split, batch_size=96)).tensor_parallel == 8
    assert deployment(split).clients == 96
