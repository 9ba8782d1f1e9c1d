"""Weights read from files that are mapped: which bytes, and that they count for nobody."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moe_serve.errors import CheckpointError
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.mapped_file import MappedFile

Write = Callable[..., Path]
MIB = 1 << 20
NUM_TENSORS = 12
# Copies all weights, of which there is room for little more than one copy.
LOADS_UNDER_A_LIMIT = """
import sys
import torch
from moe_devices.memory_cap import cap_process_memory, private_bytes
from moe_serve.weights.checkpoint import Checkpoint
MIB = 1 << 20
torch.set_num_threads(1)
checkpoint = Checkpoint.open(sys.argv[1])
cap_process_memory(private_bytes() + 110 * MIB, 0)
held = []
for name in checkpoint:
    held.append(torch.empty(2 * MIB))
    held[-1].copy_(checkpoint.read(name, (2 * MIB,)))
print(sum(each.nbytes for each in held) // MIB)
try:
    torch.ones(8 * MIB)
except RuntimeError:
    print("refused")
"""


def test_weights_of_most_of_what_a_process_may_have_are_loaded(tmp_path: Path) -> None:
    """8 MiB each, of zeros that take no place on the disk."""
    entries = {
        f"t{n}": {
            "dtype": "F32",
            "shape": [2 * MIB],
            "data_offsets": [8 * MIB * n, 8 * MIB * (n + 1)],
        }
        for n in range(NUM_TENSORS)
    }
    header = json.dumps(entries).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 8 * MIB * NUM_TENSORS)
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, "-c", LOADS_UNDER_A_LIMIT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["96", "refused"], done.stderr


def test_numbers_may_begin_anywhere_and_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    numbers = torch.arange(10.0)
    path.write_bytes(b"abc" + numbers.numpy().tobytes())
    mapped = MappedFile(path)
    assert torch.equal(mapped.tensor(3, (2, 5), torch.float32), numbers.view(2, 5))
    last = mapped.tensor(35, (2,), torch.float32)
    assert mapped.tensor(43, (0, 4), torch.bfloat16).shape == (0, 4)
    with pytest.raises(ValueError, match="it has 43 bytes"):
        mapped.tensor(35, (3,), torch.float32)
    path.unlink()
    del mapped
    assert last.tolist() == [8.0, 9.0]


def test_a_file_that_shrinks_after_it_was_opened_is_named(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": torch.ones(6)}}))
    file = checkpoint.stored("a").file
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"cannot read tensor a of .*model\.safetensors: it"):
        checkpoint.read("a", (6,))
    file.unlink()
    with pytest.raises(CheckpointError, match=r"cannot read tensor a of .*No such file"):
        Checkpoint(checkpoint.path, {}, {"a": checkpoint.stored("a")}).read("a", (6,))
