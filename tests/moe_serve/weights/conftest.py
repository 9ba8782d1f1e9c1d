"""Handmade checkpoints of a few tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

Shards = dict[str, dict[str, torch.Tensor]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write({file: {name: tensor}}, index=True, **config) -> directory."""

    def make(shards: Shards, index: bool = False, **config: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        for file, tensors in shards.items():
            save_file(tensors, tmp_path / file)
        if index:
            weight_map = {name: file for file, tensors in shards.items() for name in tensors}
            target = tmp_path / "model.safetensors.index.json"
            target.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return tmp_path

    return make
