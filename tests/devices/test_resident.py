"""Memory that is taken when it is written and given back in parts; by the system's own count."""

import mmap
import sys

import pytest
import torch
from moe_devices.resident import ResidentTensor
from resident_bytes import resident_bytes

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="madvise is Linux's")


def test_rows_take_memory_when_they_are_written_and_give_it_back() -> None:
    rows = ResidentTensor((64, 256, 1024), torch.float32)
    assert rows.row_bytes == MIB and resident_bytes([rows.tensor]) == 0
    assert not rows.tensor[5].any() and resident_bytes([rows.tensor]) == 0
    rows.tensor[8:24] = 1.5
    assert resident_bytes([rows.tensor]) == 16 * MIB
    rows.discard(10, 20)
    assert resident_bytes([rows.tensor]) == 6 * MIB
    assert not rows.tensor[10:20].any()
    assert bool((rows.tensor[8:10] == 1.5).all()) and bool((rows.tensor[20:24] == 1.5).all())
    rows.tensor[12] = 2.5
    assert (
        resident_bytes([rows.tensor]) == 7 * MIB
        and float(rows.tensor[12].sum()) == 2.5 * 256 * 1024
    )


@pytest.mark.parametrize("row_bytes", [100, mmap.PAGESIZE + 8, 3 * 5000])
def test_rows_that_are_no_whole_pages_are_zeros_and_spare_their_neighbours(row_bytes: int) -> None:
    rows = ResidentTensor((40, row_bytes), torch.uint8)
    rows.tensor.fill_(7)
    before = resident_bytes([rows.tensor])
    for first, end in ((0, 1), (5, 6), (9, 30), (39, 40)):
        rows.discard(first, end)
        rows.tensor[first:end].add_(1)
        assert bool((rows.tensor[first:end] == 1).all())
    assert int((rows.tensor == 7).sum()) == (40 - 24) * row_bytes
    rows.discard(9, 30)
    assert resident_bytes([rows.tensor]) <= before - (21 * row_bytes - 2 * mmap.PAGESIZE)


def test_the_memory_stays_while_the_tensor_does() -> None:
    view = ResidentTensor((4, 1000), torch.float32).tensor[2]
    view.fill_(3.0)
    assert float(view.sum()) == 3000.0
