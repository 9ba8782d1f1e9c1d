"""Packed rows: what comes out is what went in, as exactly as the wire's precision says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_comm.bridge_routing import GroupPools
from moe_comm.bridge_rows import LinkRows, Wires, wires_by_rank
from moe_comm.wire import CrossingRows, RowFormat, Wire, on_host, quantize

CPU = torch.device("cpu")
WIRES: tuple[Wire, ...] = ("float32", "bfloat16", "float16", "int8")
LARGEST_ERROR = {"float32": 0.0, "bfloat16": 2**-8, "float16": 2**-11, "int8": 0.5 / 127}
THREE = GroupPools(("a", "b", "a", "c", "b"))
UNLIKE: Wires = {
    frozenset("ab"): "int8",
    frozenset("ac"): "bfloat16",
    frozenset("bc"): "float32",
}


def crossing(num_rows: int, width: int, num_chosen: int, dtype: torch.dtype) -> CrossingRows:
    generator = torch.Generator().manual_seed(num_rows * 1000 + width)
    x_CD = torch.randn(num_rows, width, generator=generator).to(dtype)
    slot_CK = torch.randint(-1, 2**31 - 1, (num_rows, num_chosen), generator=generator)
    weights_CK = torch.rand(num_rows, num_chosen, generator=generator)
    return CrossingRows(x_CD, slot_CK.int(), weights_CK)


def assert_arrived(got: CrossingRows, sent: CrossingRows, share: float) -> None:
    assert torch.equal(got.slot_CK, sent.slot_CK) and torch.equal(got.weights_CK, sent.weights_CK)
    assert got.x_CD.shape == sent.x_CD.shape and got.x_CD.dtype == sent.x_CD.dtype
    if sent.x_CD.numel():
        bound = sent.x_CD.float().abs().amax(1, keepdim=True) * share * (1 + 1e-5)
        assert ((got.x_CD.float() - sent.x_CD.float()).abs() <= bound).all()


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(WIRES), st.integers(0, 9), st.integers(1, 40), st.integers(1, 9))
def test_rows_survive_a_wire(wire: Wire, num_rows: int, width: int, num_chosen: int) -> None:
    row_format = RowFormat(wire, width, num_chosen)
    sent = crossing(num_rows, width, num_chosen, torch.float32)
    packed_CB = row_format.pack(sent)
    assert packed_CB.dtype == torch.uint8
    assert packed_CB.shape == (num_rows, row_format.num_bytes)
    got = row_format.unpack(packed_CB.view(-1), torch.float32, CPU)
    assert_arrived(got, sent, LARGEST_ERROR[wire])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_wire_of_the_tokens_dtype_loses_nothing(dtype: torch.dtype) -> None:
    wire: Wire = "bfloat16" if dtype == torch.bfloat16 else "float16"
    sent = crossing(8, 13, 2, dtype)
    row_format = RowFormat(wire, 13, 2)
    assert_arrived(row_format.unpack(row_format.pack(sent), dtype, CPU), sent, 0.0)


def test_a_row_is_as_long_as_its_parts() -> None:
    assert [RowFormat(wire, 1024, 8).num_bytes for wire in WIRES] == [4160, 2112, 2112, 1092]
    assert [RowFormat(wire, 7, 1).num_bytes for wire in WIRES] == [36, 24, 24, 20]


def test_int8_takes_rows_of_any_size() -> None:
    x_CD = torch.randn(6, 33, generator=torch.Generator().manual_seed(1))
    x_CD *= torch.tensor([1e-44, 1e-38, 1e-3, 1.0, 1e30, 0.0])[:, None]
    values_CD, scale_C1 = quantize(x_CD)
    assert values_CD.abs().amax(1).tolist()[1:] == [127, 127, 127, 127, 0]
    bound_C1 = scale_C1 / 2 * 1.001 + 1e-42
    assert ((values_CD.float() * scale_C1 - x_CD).abs() <= bound_C1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_int8_does_not_hide_a_fault(value: float) -> None:
    x_CD = torch.ones(2, 8)
    x_CD[0, 3] = value
    row_format = RowFormat("int8", 8, 2)
    sent = CrossingRows(x_CD, torch.zeros(2, 2, dtype=torch.int32), torch.ones(2, 2))
    got_CD = row_format.unpack(row_format.pack(sent), torch.float32, CPU).x_CD
    assert not got_CD[0].isfinite().any()
    assert torch.equal(got_CD[1], torch.ones(8))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=5), st.integers(1, 30), st.integers(1, 4))
def test_one_buffer_carries_rows_of_unlike_links(
    counts: list[int], width: int, num_chosen: int
) -> None:
    """From rank 3, of a pool of its own: what each of the others unpacks is what it was sent."""
    counts[3] = 0
    sent = crossing(sum(counts), width, num_chosen, torch.float32)
    sender = LinkRows(wires_by_rank(THREE, UNLIKE, 3), UNLIKE, width, num_chosen)
    units_UB = sender.pack(sent, counts)
    units = sender.in_units(counts)
    num_bytes = [RowFormat(w, width, num_chosen).num_bytes for w in ("bfloat16", "float32")]
    ranks_of_a = counts[0] + counts[2]
    assert units_UB.numel() == num_bytes[0] * ranks_of_a + num_bytes[1] * (counts[1] + counts[4])
    parts = zip(units_UB.split(units), sent.split(counts), units, counts, strict=True)
    for rank, (part_UB, part, num_units, count) in enumerate(parts):
        if rank == 3:
            continue
        receiver = LinkRows(wires_by_rank(THREE, UNLIKE, rank), UNLIKE, width, num_chosen)
        arrived = receiver.in_rows([0, 0, 0, num_units, 0])
        assert arrived == [0, 0, 0, count, 0]
        got = receiver.unpack(part_UB, arrived, torch.float32, CPU)
        assert_arrived(got, part, LARGEST_ERROR["bfloat16" if rank in (0, 2) else "float32"])


def test_arrivals_from_unlike_links_keep_the_order_of_the_ranks() -> None:
    """To rank 0: from ranks 1 and 4 in int8, from rank 3 in bfloat16."""
    receiver = LinkRows(wires_by_rank(THREE, UNLIKE, 0), UNLIKE, 6, 2)
    counts, parts, packed = [0, 2, 0, 3, 1], [], []
    for rank in (1, 3, 4):
        sender = LinkRows(wires_by_rank(THREE, UNLIKE, rank), UNLIKE, 6, 2)
        parts.append(crossing(counts[rank], 6, 2, torch.float32))
        packed.append(sender.pack(parts[-1], [counts[rank], 0, 0, 0, 0]))
    got = receiver.unpack(torch.cat(packed), counts, torch.float32, CPU)
    assert_arrived(got, CrossingRows.together(parts), LARGEST_ERROR["int8"])
    # bfloat16 is the finer one: rank 3's rows are those in the middle.
    error_C = (got.x_CD - CrossingRows.together(parts).x_CD).abs().amax(1)
    assert error_C[2:5].max() < 2**-8 * 3 and len(error_C) == 6


def test_pools_without_a_link_are_refused() -> None:
    wires: Wires = {frozenset("ab"): "int8", frozenset("ac"): "int8"}
    with pytest.raises(ValueError, match=r"none between b and c, .*`between: \[b, c\]`"):
        wires_by_rank(THREE, wires, 0)


def test_rows_on_the_host_are_not_copied() -> None:
    rows_RD = torch.ones(3, 2)
    assert on_host(rows_RD).data_ptr() == rows_RD.data_ptr()
