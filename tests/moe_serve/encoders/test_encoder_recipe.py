"""What is made of an encoder's numbers, as the checkpoint says."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_checkpoints import add_modules
from encoder_runs import encode, load, plain, plain_vectors

from moe_serve.encoders.recipe import read_activation, read_embedding_recipe
from moe_serve.errors import CheckpointError, UnsupportedError

# By hand, from the vectors of one input's tokens.
POOLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda x_LD: x_LD[0],
    "mean": lambda x_LD: x_LD.mean(0),
    "max": lambda x_LD: x_LD.amax(0),
    "lasttoken": lambda x_LD: x_LD[-1],
}
FLAGS = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "lasttoken": "lasttoken",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
}


def pooling_by(*modes: str) -> tuple[str, dict[str, Any]]:
    flags = {f"pooling_mode_{flag}": mode in modes for mode, flag in FLAGS.items()}
    return "Pooling", {"word_embedding_dimension": 32, "include_prompt": True, **flags}


@pytest.fixture
def own_checkpoint(encoder_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """own_checkpoint(family, head) -> a copy to write to."""

    def make(*arguments: str) -> Path:
        return Path(shutil.copytree(encoder_checkpoint(*arguments), tmp_path / "copy"))

    return make


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("normalizes", [False, True])
def test_pooling_and_normalising(
    mode: str, normalizes: bool, own_checkpoint: Callable[..., Path], prompts: list[list[int]]
) -> None:
    path = own_checkpoint()
    add_modules(path, pooling_by(mode), *([("Normalize", {})] if normalizes else []))
    found = encode(load(path)[0], prompts)
    module = plain(path, "Bert", "Model")
    for values, prompt in zip(found, prompts, strict=True):
        expected = POOLED[mode](plain_vectors(module, prompt))
        if normalizes:
            expected = expected / expected.norm()
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)


def test_newer_files_name_one_mode(own_checkpoint: Callable[..., Path]) -> None:
    path = add_modules(own_checkpoint(), ("Pooling", {"pooling_mode": "max"}), ("Dropout", {}))
    recipe = read_embedding_recipe(path)
    assert (recipe.pooling, recipe.normalizes) == ("max", False)


def test_without_modules_it_is_the_mean(encoder_checkpoint: Callable[..., Path]) -> None:
    recipe = read_embedding_recipe(encoder_checkpoint())
    assert (recipe.pooling, recipe.normalizes) == ("mean", False)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([pooling_by("mean", "max")], ("mean and max", "cls, mean, max, lasttoken")),
        ([pooling_by("mean_sqrt_len")], ("mean_sqrt_len",)),
        ([pooling_by()], ("nothing",)),
        ([pooling_by("cls"), ("Dense", {})], ("models.Dense", "module 2")),
    ],
)
def test_unknown_parts_are_refused(
    parts: Iterable[Any], words: tuple[str, ...], own_checkpoint: Callable[..., Path]
) -> None:
    path = add_modules(own_checkpoint(), *parts)
    with pytest.raises(UnsupportedError) as refusal:
        load(path)
    assert all(word in str(refusal.value) for word in words)


def test_damaged_modules_are_named(own_checkpoint: Callable[..., Path]) -> None:
    path = own_checkpoint()
    (path / "modules.json").write_text('{"0": ')
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        load(path)


def test_scores_go_through_what_the_checkpoint_names(
    own_checkpoint: Callable[..., Path], prompts: list[list[int]]
) -> None:
    path = own_checkpoint("Bert", "ForSequenceClassification")
    scores = np.array(encode(load(path)[0], prompts))
    set_config(path, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    logits = np.array(encode(load(path)[0], prompts))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert logits.min() < 0
    set_config(path, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})
    assert read_activation(path) == "sigmoid"
    set_config(path, sentence_transformers={"activation_fn": "torch.nn.Tanh"})
    with pytest.raises(UnsupportedError, match="Tanh"):
        load(path)


def set_config(path: Path, **fields: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
