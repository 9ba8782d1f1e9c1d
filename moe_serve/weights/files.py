"""Which safetensors files a checkpoint has, and which tensor lies in which."""

from collections.abc import Mapping
from pathlib import Path

from moe_serve.errors import CheckpointError
from moe_serve.weights.config_files import read_json
from moe_serve.weights.headers import StoredTensor, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED_PATTERNS = ("*.bin", "*.pt", "*.pth")


def find_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name: of its index, its single file, or all its files.

    Raises:
        CheckpointError: files are missing, truncated, pickled, or disagree with the index.
    """
    if (directory / SINGLE_FILE).exists():
        return read_header(directory / SINGLE_FILE)
    if (directory / INDEX_FILE).exists():
        return follow_index(directory)
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise CheckpointError(explain_no_weights(directory))
    return merge_headers(files)


def follow_index(directory: Path) -> dict[str, StoredTensor]:
    weight_map = read_json(directory / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise CheckpointError(f"{directory / INDEX_FILE} has no weight_map; copy it again")
    headers: dict[str, dict[str, StoredTensor]] = {}
    tensors = {}
    for name, shard in weight_map.items():
        if shard not in headers:
            headers[shard] = read_shard(directory / shard, name)
        if name not in headers[shard]:
            raise CheckpointError(f"{directory / shard} has no tensor {name}, as its index says")
        tensors[name] = headers[shard][name]
    return tensors


def read_shard(file: Path, wanted: str) -> dict[str, StoredTensor]:
    if not file.exists():
        raise CheckpointError(
            f"checkpoint shard {file} is missing; tensor {wanted} should be in it; copy the shard"
        )
    return read_header(file)


def merge_headers(files: list[Path]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"tensor {name} is in both {tensors[name].file} and {file}; "
                    f"remove one, or add {INDEX_FILE}"
                )
            tensors[name] = tensor
    return tensors


def explain_no_weights(directory: Path) -> str:
    pickled = [file.name for pattern in PICKLED_PATTERNS for file in directory.glob(pattern)]
    if pickled:
        return (
            f"checkpoint {directory} holds pickled weights only ({min(pickled)}), which could run "
            "any code when read; convert them to safetensors"
        )
    return f"checkpoint {directory} has no .safetensors file; copy the weights into it"
