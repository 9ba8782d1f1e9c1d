"""One checkpoint has one digest wherever it lies; another of the same shape has another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import rewrite_json
from safetensors.torch import load_file, save_file

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.errors import CheckpointError
from moe_serve.served_digests import served_digests
from moe_serve.weights.checkpoint_digests import checkpoint_digests

Tensors = dict[str, torch.Tensor]
CONFIG = {"hidden_size": 64, "eos_token_id": 2, "_name_or_path": "/here"}
QUERY = "model.layers.1.self_attn.q_proj.weight"
EXPERT = "model.layers.1.mlp.experts.{}.up_proj.weight"


def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    shapes = {QUERY: (64, 64), "model.norm.weight": (64,)}
    shapes |= {EXPERT.format(expert): (32, 64) for expert in range(66)}
    return {
        name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()
    }


def write(path: Path, num_files: int = 1, config: dict[str, Any] = CONFIG) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    every = tensors()
    for number in range(num_files):
        part = dict(list(every.items())[number::num_files])
        name = "model" if num_files == 1 else f"model-{number}"
        save_file(part, path / f"{name}.safetensors", {"number": f"{number}"})
    return path


@pytest.fixture
def digests(tmp_path: Path) -> dict[str, str]:
    return checkpoint_digests(write(tmp_path / "right"))


def differing(path: Path, digests: dict[str, str]) -> set[str]:
    found = checkpoint_digests(path)
    assert found.keys() == digests.keys()
    return {part for part, digest in found.items() if digest != digests[part]}


def test_where_the_files_lie_and_who_saved_them_is_no_matter(
    tmp_path: Path, digests: dict[str, str]
) -> None:
    other = {"transformers_version": "5.0", **dict(reversed(CONFIG.items())), "_name_or_path": "/"}
    assert not differing(write(tmp_path / "copy"), digests)
    assert not differing(write(tmp_path / "in files", 5, other), digests)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda held: held[QUERY].mul_(1.01), {"weights"}),
        (lambda held: held["model.norm.weight"].add_(0.1), {"weights"}),
        (lambda held: held[EXPERT.format(64)].mul_(-1), {"weights"}),
        (lambda held: held.update({QUERY: held[QUERY].half()}), None),
        (lambda held: held.update({QUERY: held[QUERY].reshape(32, 128)}), None),
        (lambda held: held.pop(EXPERT.format(65)), {"names and shapes of tensors"}),
    ],
)
def test_a_model_of_other_tensors(
    change: Callable[[Tensors], object],
    parts: set[str] | None,
    tmp_path: Path,
    digests: dict[str, str],
) -> None:
    path = write(tmp_path / "other")
    held = load_file(path / "model.safetensors")
    change(held)
    save_file(held, path / "model.safetensors")
    found = differing(path, digests)
    assert found == parts if parts else "names and shapes of tensors" in found


@pytest.mark.parametrize(
    ("file", "fields"),
    [("config.json", {"rope_theta": 5e5}), ("generation_config.json", {"eos_token_id": [2, 3]})],
)
def test_a_model_that_is_run_otherwise(
    file: str, fields: dict[str, Any], tmp_path: Path, digests: dict[str, str]
) -> None:
    path = write(tmp_path / "other")
    if not (path / file).exists():
        (path / file).write_text("{}")
    rewrite_json(path / file, lambda content: content | fields)
    assert differing(path, digests) == {"config.json"}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "short")
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="is truncated: tensor"):
        checkpoint_digests(path)
    file.unlink()
    assert checkpoint_digests(path).keys() == {"config.json"}


def test_each_served_model_has_its_own(tmp_path: Path) -> None:
    path, other = write(tmp_path / "one"), write(tmp_path / "two", config=CONFIG | {"a": 1})

    def found(*paths: Path | str) -> dict[str, str]:
        models = tuple(ModelConfig(path=str(each)) for each in paths)
        return served_digests(Config(models=models, pools=(PoolConfig(name="a", device="cpu"),)))

    assert found(path) == {
        f"{part} of model.path": digest for part, digest in checkpoint_digests(path).items()
    }
    both = found(path, other)
    assert len(both) == 6
    name = "config.json of models[{}].path"
    assert both[name.format(0)] != both[name.format(1)]
    # The files of these are made later on, or never.
    assert found("demo").keys() == found("builtin:mixtral_8x7b").keys() != found(path).keys()
    assert found("demo") != found("builtin:mixtral_8x7b")
