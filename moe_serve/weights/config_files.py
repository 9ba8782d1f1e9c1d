"""The JSON files beside a checkpoint's weights; without torch, so that anyone may read them."""

import json
from pathlib import Path
from typing import Any

from moe_serve.errors import CheckpointError


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as it is.

    Raises:
        CheckpointError: no such directory, no config.json in it, or no JSON object in that.
    """
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory} is not a directory; check model.path")
    return read_json(directory / "config.json")


def read_end_token_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end a sequence: generation_config.json's, else config.json's; maybe none."""
    generation = directory / "generation_config.json"
    found = read_json(generation).get("eos_token_id") if generation.exists() else None
    if found is None:
        found = read_config(directory).get("eos_token_id")
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)


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
