"""What a checkpoint says is made of its encoder's numbers; without torch.

The files are those of sentence-transformers (Reimers and Gurevych 2019, arXiv:1908.10084):
modules.json names what follows the encoder, and each part's folder has its config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.weights.config_files import read_config, read_json

Pooling = Literal["cls", "mean", "max", "lasttoken"]
Activation = Literal["sigmoid", "identity"]

_MODE = "pooling_mode_"
_ACTIVATIONS: Mapping[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}


@dataclass(frozen=True, slots=True)
class EmbeddingRecipe:
    """How the vectors of an input's tokens become its embedding.

    Attributes:
        normalizes: to length 1.
    """

    pooling: Pooling
    normalizes: bool


def read_embedding_recipe(path: Path) -> EmbeddingRecipe:
    """The recipe of a checkpoint; without modules.json, as sentence-transformers has it: the mean
    of the tokens, not normalised.

    Raises:
        UnsupportedError: a part or a pooling that is not computed here.
        CheckpointError: a file is damaged.
    """
    file = path / "modules.json"
    if not file.is_file():
        return EmbeddingRecipe("mean", normalizes=False)
    modules = _read_modules(file)
    pooling: Pooling | None = None
    normalizes = False
    for index, module in enumerate(modules):
        kind = str(module.get("type", "")).rpartition(".")[2]
        folder = str(module.get("path", ""))
        if kind == "Pooling" and pooling is None:
            pooling = _read_pooling(path / folder)
        elif kind == "Normalize":
            normalizes = True
        elif kind != "Dropout" and not (kind == "Transformer" and index == 0 and not folder):
            raise UnsupportedError(
                f"{file}: module {index} is {module.get('type')!r} in {folder!r}; this version "
                "computes a Transformer in the checkpoint's own directory, then Pooling and "
                "Normalize"
            )
    return EmbeddingRecipe(pooling or "mean", normalizes)


def read_activation(path: Path) -> Activation:
    """What a reranker's one logit goes through: the sigmoid, unless config.json names another.

    Raises:
        UnsupportedError: an activation that is not computed here.
    """
    config = read_config(path)
    nested = config.get("sentence_transformers") or {}
    name = nested.get("activation_fn") or config.get("sbert_ce_default_activation_function")
    kind = str(name or "Sigmoid").rpartition(".")[2]
    if kind not in _ACTIVATIONS:
        raise UnsupportedError(
            f"{path / 'config.json'}: scores through {name!r} are not computed by this version; "
            f"it has {' and '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[kind]


def _read_modules(file: Path) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
    except (OSError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"cannot read {file}: {error}; copy the file again") from None


def _read_pooling(folder: Path) -> Pooling:
    config = read_json(folder / "config.json")
    modes = [str(config["pooling_mode"])] if "pooling_mode" in config else _flagged(config)
    for mode in get_args(Pooling):
        if modes == [mode]:
            return mode  # type: ignore[no-any-return]
    raise UnsupportedError(
        f"{folder / 'config.json'}: pooling by {' and '.join(modes) or 'nothing'} is not computed "
        f"by this version; it has one of {', '.join(get_args(Pooling))}"
    )


def _flagged(config: Mapping[str, Any]) -> list[str]:
    """The modes that are true: `pooling_mode_cls_token`, `pooling_mode_mean_tokens`, ..."""
    names = [name.removeprefix(_MODE) for name, value in config.items() if value is True]
    flags = [name for name in names if f"{_MODE}{name}" in config]
    return [name.removesuffix("_tokens").removesuffix("_token") for name in flags]
