"""One YAML file and its overrides to a validated, frozen Config."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_placement.model.names import BUILTIN

from moe_serve.config.document import read_document
from moe_serve.config.fields import build
from moe_serve.config.tree import Config, ModelConfig
from moe_serve.config.unserved import require_served
from moe_serve.config.validate import DEMO, validate
from moe_serve.errors import ConfigError, MoeServeError

_DEVICE_FILES = (".yaml", ".yml")


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, to_serve: bool = True
) -> Config:
    """Read, override, check.

    Args:
        overrides: `section.key=value` with a YAML value; list entries by number, as in
            `pools.0.ranks=4`.
        to_serve: refuse what can be checked but not served.

    Raises:
        ConfigError: names the key, the value and what was expected instead.
        UnsupportedError: names what this version does not serve.
    """
    source = Path(path)
    document = read_document(source, overrides)
    try:
        config = build(Config, _with_models(document), "")
        config = replace(config, models=tuple(map(absolute_path, config.models)))
        validate(config)
        if to_serve:
            require_served(config)
    except MoeServeError as error:
        raise type(error)(f"{source}: {error}") from error
    return _beside(source.parent, config)


def _with_models(document: dict[str, Any]) -> dict[str, Any]:
    """`model:` becomes the one entry of `models:`."""
    if "model" not in document:
        return document
    if "models" in document:
        raise ConfigError('model and models: both are given; "model" is short for one of "models"')
    rest = {key: value for key, value in document.items() if key != "model"}
    return {"models": [build(ModelConfig, document["model"], "model")], **rest}


def absolute_path(model: ModelConfig) -> ModelConfig:
    """With the whole path of its directory, wherever that is read; ConfigError where that is in
    nobody's home."""
    if model.path == DEMO or model.path.startswith(BUILTIN):
        return model
    try:
        path = Path(model.path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"model.path: {model.path[:80]}: {error}; give the whole path") from None
    return replace(model, path=str(path))


def _beside(folder: Path, config: Config) -> Config:
    """Files are looked for from the config's own folder, so that they move together."""
    placement = config.placement
    plan = placement.plan if placement.plan == "auto" else str(folder / placement.plan)
    load, record = (
        str(folder / name) if name else "" for name in (placement.load, placement.record)
    )
    return replace(
        config,
        placement=replace(placement, plan=plan, load=load, record=record),
        pools=tuple(
            replace(pool, hardware=str(folder / pool.hardware))
            if pool.hardware.endswith(_DEVICE_FILES)
            else pool
            for pool in config.pools
        ),
        world=replace(
            config.world, secret=str(folder / config.world.secret) if config.world.secret else ""
        ),
    )
