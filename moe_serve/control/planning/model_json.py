"""A model's config.json: from its checkpoint directory, or shipped as data without weights."""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from moe_placement.model.names import BUILTIN

from moe_serve.config.rules import nearest
from moe_serve.config.tree import Config, ModelConfig
from moe_serve.errors import ConfigError


def read_model_json(model: ModelConfig) -> dict[str, Any]:
    """The model's config.json; for `builtin:NAME` the published one.

    `demo` has no files before they are made: name their directory instead.

    Raises:
        ConfigError: no such directory or built-in model, or no readable config.json in it.
    """
    place: Traversable = Path(model.path)
    if model.path.startswith(BUILTIN):
        place = _builtin(model.path.removeprefix(BUILTIN))
    try:
        if not place.is_dir():
            raise ConfigError(
                f"model.path: no such directory: {model.path}; "
                "name a Hugging Face checkpoint directory"
            )
        content = json.loads(place.joinpath("config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"model.path: {model.path} holds no readable config.json ({error.strerror}); "
            "name a Hugging Face checkpoint directory"
        ) from error
    except ValueError as error:
        raise ConfigError(f"model.path: {model.path}/config.json is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"model.path: {model.path}/config.json holds no JSON object")
    return content


def require_weights(config: Config) -> None:
    """Refuse to serve a model of which only the config.json is known.

    Raises:
        ConfigError: a `builtin:` model.
    """
    for model in config.models:
        check_has_weights(model)


def check_has_weights(model: ModelConfig) -> None:
    """As `require_weights`, of one model."""
    if model.path.startswith(BUILTIN):
        raise ConfigError(
            f"model.path: {model.path} has no weights, it can only be checked; "
            "weights wanted: --set model.path=/path/to/checkpoint"
        )


def _builtin(name: str) -> Traversable:
    data = files("moe_placement") / "data"
    known = {
        entry.name: entry
        for entry in sorted(data.iterdir(), key=lambda entry: entry.name)
        if (entry / "config.json").is_file()
    }
    if name not in known:
        help_ = nearest(name, list(known)).replace("keys", "models")
        raise ConfigError(f'model.path: no built-in model is named "{name}"; {help_}')
    return known[name]
