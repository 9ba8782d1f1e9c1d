"""Reading checkpoint directories, and what is said of damaged ones."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moe_serve.errors import CheckpointError
from moe_serve.weights.checkpoint import Checkpoint

A = torch.arange(12.0).reshape(4, 3)
B = torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16()
TWO_SHARDS = {"one.safetensors": {"a": A}, "two.safetensors": {"b": B}}

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("shards", "index"),
    [
        ({"model.safetensors": {"a": A, "b": B}}, False),
        (TWO_SHARDS, True),
        (TWO_SHARDS, False),
    ],
)
def test_reads_tensors_wherever_they_lie(write: Write, shards: dict, index: bool) -> None:
    checkpoint = Checkpoint.open(write(shards, index=index, model_type="llama"))
    assert checkpoint.config == {"model_type": "llama"}
    assert sorted(checkpoint) == ["a", "b"]
    assert torch.equal(checkpoint.read("a", (4, 3)), A)
    assert torch.equal(checkpoint.read("b", (5,)), B)
    assert checkpoint.read("b", (5,)).dtype == torch.bfloat16


def test_index_decides_which_files_count(write: Write) -> None:
    path = write(TWO_SHARDS, index=True)
    save_file({"a": A + 1}, path / "consolidated.safetensors")
    assert torch.equal(Checkpoint.open(path).read("a", (4, 3)), A)


def test_rows_are_read_and_counted_alone(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A}}))
    assert torch.equal(checkpoint.read("a", (4, 3), slice(1, 3)), A[1:3])
    assert checkpoint.bytes_read == 2 * 3 * 4
    assert checkpoint.read("a", (4, 3), slice(2, 2)).shape == (0, 3)
    assert checkpoint.bytes_read == 2 * 3 * 4
    checkpoint.read("a", (4, 3))
    assert checkpoint.bytes_read == 2 * 3 * 4 + 4 * 3 * 4


def test_columns_are_read_and_counted_alone(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A}}))
    assert torch.equal(checkpoint.read("a", (4, 3), columns=slice(1, 3)), A[:, 1:3])
    assert checkpoint.bytes_read == 4 * 2 * 4
    assert torch.equal(checkpoint.read("a", (4, 3), slice(2, 4), slice(0, 1)), A[2:, :1])
    assert checkpoint.bytes_read == 4 * 2 * 4 + 2 * 4


def test_reading_goes_on_after_close(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A}}))
    first = checkpoint.read("a", (4, 3))
    checkpoint.close()
    assert torch.equal(first, A)
    assert torch.equal(checkpoint.read("a", (4, 3)), A)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 7}, None, (7,)),
        ({"eos_token_id": 7}, {"eos_token_id": [1, 2]}, (1, 2)),
        ({"eos_token_id": [3]}, {"temperature": 0.6}, (3,)),
        ({}, None, ()),
    ],
)
def test_end_token_ids(
    write: Write, config: dict, generation: dict | None, expected: tuple
) -> None:
    path = write({"model.safetensors": {"a": A}}, **config)
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    assert Checkpoint.open(path).end_token_ids == expected


def test_missing_tensor_is_named(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A}}))
    assert "c" not in checkpoint
    with pytest.raises(CheckpointError, match=r"no tensor c;"):
        checkpoint.read("c", (1,))


def test_misshapen_tensor_is_named_with_both_shapes(write: Write) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A}}))
    with pytest.raises(CheckpointError, match=r"tensor a of .*\[4, 3\].*expected \[3, 4\]"):
        checkpoint.read("a", (3, 4))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e5m2, torch.float64])
def test_unreadable_dtype_is_named(write: Write, dtype: torch.dtype) -> None:
    checkpoint = Checkpoint.open(write({"model.safetensors": {"a": A.to(dtype)}}))
    with pytest.raises(CheckpointError, match=r"tensor a of .*model\.safetensors has dtype"):
        checkpoint.read("a", (4, 3))


def test_dtype_that_safetensors_does_not_know(write: Write) -> None:
    path = write({"model.safetensors": {"a": A}})
    header = {"a": {"dtype": "F3", "shape": [4], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"xx")
    with pytest.raises(CheckpointError, match=r"tensor a of .* has dtype F3"):
        Checkpoint.open(path).read("a", (4,))


def test_missing_directory_and_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is not a directory"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_damaged_config(write: Write, text: str) -> None:
    path = write({"model.safetensors": {"a": A}})
    (path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(path)


def test_missing_shard_is_named_with_a_tensor_of_it(write: Write) -> None:
    path = write(TWO_SHARDS, index=True)
    (path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"two\.safetensors is missing; tensor b"):
        Checkpoint.open(path)


def test_index_that_disagrees_with_its_shard(write: Write) -> None:
    path = write(TWO_SHARDS, index=True)
    save_file({"other": A}, path / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"two\.safetensors has no tensor b"):
        Checkpoint.open(path)


def test_index_without_map(write: Write) -> None:
    path = write(TWO_SHARDS, index=True)
    (path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no weight_map"):
        Checkpoint.open(path)


def test_same_tensor_in_two_files_without_index(write: Write) -> None:
    path = write({"one.safetensors": {"a": A}, "two.safetensors": {"a": A}})
    with pytest.raises(CheckpointError, match=r"tensor a is in both .*one.* and .*two"):
        Checkpoint.open(path)


def test_truncated_shard_is_found_at_open(write: Write) -> None:
    path = write(TWO_SHARDS, index=True)
    shard = path / "one.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"one\.safetensors is truncated: tensor a ends"):
        Checkpoint.open(path)


@pytest.mark.parametrize("num_bytes", [0, 5, 20])
def test_shard_truncated_in_its_header(write: Write, num_bytes: int) -> None:
    path = write(TWO_SHARDS, index=True)
    shard = path / "two.safetensors"
    shard.write_bytes(shard.read_bytes()[:num_bytes])
    with pytest.raises(CheckpointError, match=r"two\.safetensors is truncated"):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"not json", "damaged header"),
        (b'{"a": 3}', "damaged header"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "tensor a 4 bytes"),
    ],
)
def test_damaged_header(write: Write, header: bytes, said: str) -> None:
    path = write({"model.safetensors": {"a": A}})
    content = struct.pack("<Q", len(header)) + header + b"1234"
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(path)


def test_pickled_weights_are_refused(write: Write) -> None:
    path = write({})
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        Checkpoint.open(path)
    (path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*safetensors"):
        Checkpoint.open(path)
