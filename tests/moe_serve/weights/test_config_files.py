"""The JSON files beside a checkpoint's weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_serve.errors import CheckpointError
from moe_serve.weights.config_files import read_end_token_ids


def write(folder: Path, name: str, end: Any) -> None:
    (folder / name).write_text(json.dumps({"eos_token_id": end}))


@pytest.mark.parametrize(("end", "found"), [(2, (2,)), ([2, 3], (2, 3)), (None, ()), ([], ())])
def test_end_token_ids(tmp_path: Path, end: Any, found: tuple[int, ...]) -> None:
    write(tmp_path, "config.json", end)
    assert read_end_token_ids(tmp_path) == found
    write(tmp_path, "generation_config.json", 7)
    assert read_end_token_ids(tmp_path) == (7,)


@pytest.mark.parametrize("end", ["x", "2", True, 2.0, {"a": 1}, [2, "x"], 2**70, [None], [[2]]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_end_token_ids_that_are_none(tmp_path: Path, name: str, end: Any) -> None:
    write(tmp_path, "config.json", 2)
    write(tmp_path, name, end)
    with pytest.raises(CheckpointError, match=rf"{name}: eos_token_id is .*, expected a token id"):
        read_end_token_ids(tmp_path)
