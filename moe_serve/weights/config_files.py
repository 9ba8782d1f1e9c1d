"""The JSON files beside a checkpoint's weights; without torch, so that anyone may read them."""

import json
from pathlib import Path
from typing import Any

from moe_serve.errors import CheckpointError

_MORE_IDS_THAN_ANY = 1 << 31


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as it is.

    Raises:
        CheckpointError: no such directory, no config.json in it, or no JSON object in that.
    """
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory} is not a directory; check model.path")
    return read_json(directory / "config.json")


def read_end_token_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end a sequence: generation_config.json's, else config.json's; maybe none.

    Raises:
        CheckpointError: they are no token ids.
    """
    path = directory / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.exists() else None
    if found is None:
        path = directory / "config.json"
        found = read_json(path).get("eos_token_id")
    found = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(each) is int and abs(each) < _MORE_IDS_THAN_ANY for each in found):
        raise CheckpointError(
            f"{path}: eos_token_id is {str(found)[:80]}, expected a token id or a list of them; "
            "copy the file again"
        )
    return tuple(found)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"checkpoint {path.parent} has no {path.name}; copy it from where the model came from"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; copy the file again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value
