"""Memory that tensors take, by the system's count."""

import gc
from collections.abc import Iterable
from pathlib import Path

import torch


def resident_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of the mappings that they lie in; the system joins those of tensors that lie side by side."""
    gc.collect()
    addresses = [tensor.data_ptr() for tensor in tensors]
    num_kib, is_inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, _, value = line.partition(" ")
        if not field.endswith(":"):
            first, end = (int(each, 16) for each in field.split("-"))
            is_inside = any(first <= address < end for address in addresses)
        elif is_inside and field == "Rss:":
            num_kib += int(value.split()[0])
    return num_kib * 1024
