"""Whether ranks read one checkpoint: digests of its config, its tensors and some of its weights.

They are the same wherever the files lie and however the tensors are spread over them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from moe_serve.errors import CheckpointError
from moe_serve.weights.config_files import read_config, read_end_token_ids
from moe_serve.weights.files import find_tensors
from moe_serve.weights.headers import StoredTensor

# What tools write there when they save a model again.
_NOTES = ("_name_or_path", "transformers_version")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
# At least one of any few gigabytes of experts, in all published models.
_EXPERT_STRIDE = 64
_SAMPLE_BYTES = 4096
# On a disk of another host each read waits for an answer.
_NUM_READERS = 16

Placed = tuple[str, StoredTensor]


def checkpoint_digests(directory: Path) -> dict[str, str]:
    """By what they are of: digests that differ where a model of the same shape is another one.

    Of the weights some KiB are read from the middle of every tensor, of routed experts from those
    of every 64th of each layer: a model that was trained further differs there, one in which
    other single numbers were changed does not.

    Where there are no weights at all it is config.json alone: who is to load them will say so.

    Raises:
        CheckpointError: as `Checkpoint.open` has them, or a file that cannot be read.
    """
    config = config_digest(read_config(directory), read_end_token_ids(directory))
    if not any(directory.glob("*.safetensors")):
        return {"config.json": config}
    tensors = sorted(find_tensors(directory).items())
    shapes = [(name, tensor.dtype, tensor.shape) for name, tensor in tensors]
    return {
        "config.json": config,
        "names and shapes of tensors": _digest([json.dumps(shapes).encode()]),
        "weights": _digest(_samples([each for each in tensors if _is_sampled(each[0])])),
    }


def config_digest(config: Mapping[str, object], end_token_ids: Iterable[int] = ()) -> str:
    """Of config.json, in whatever order, and of the ids that end a sequence."""
    kept = {key: value for key, value in config.items() if key not in _NOTES}
    return _digest([json.dumps([kept, *end_token_ids], sort_keys=True).encode()])


def _digest(pieces: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()[:12]


def _is_sampled(name: str) -> bool:
    expert = _EXPERT.search(name)
    return expert is None or int(expert[1]) % _EXPERT_STRIDE == 0


def _samples(tensors: list[Placed]) -> list[bytes]:
    """Of each tensor some bytes, in the order of the names."""
    by_file: dict[Path, list[Placed]] = {}
    for name, tensor in tensors:
        by_file.setdefault(tensor.file, []).append((name, tensor))
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        read = list(readers.map(_read_samples, by_file, by_file.values()))
    return [sample for _, sample in sorted(pair for each in read for pair in each)]


def _read_samples(file: Path, tensors: list[Placed]) -> list[tuple[str, bytes]]:
    try:
        with file.open("rb", buffering=0) as stream:
            found = []
            for name, tensor in tensors:
                num_bytes = min(tensor.num_bytes, _SAMPLE_BYTES)
                stream.seek(tensor.first_byte + (tensor.num_bytes - num_bytes) // 2)
                found.append((name, stream.read(num_bytes)))
            return found
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}; copy it again") from None
