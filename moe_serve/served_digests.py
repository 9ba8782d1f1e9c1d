"""What ranks must read alike of the models that they serve together, as digests."""

from pathlib import Path

from moe_placement.model.names import BUILTIN

from moe_serve.config.tree import Config, ModelConfig
from moe_serve.config.validate import DEMO
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.demo_config import demo_config
from moe_serve.weights.checkpoint_digests import checkpoint_digests, config_digest


def served_digests(config: Config) -> dict[str, str]:
    """Of all that must be alike in what ranks read of the models that they serve together.

    Raises:
        MoeServeError: a checkpoint that lacks files, or has damaged ones.
    """
    digests = {}
    for number, model in enumerate(config.models):
        key = "model.path" if len(config.models) == 1 else f"models[{number}].path"
        for part, digest in _digests(model).items():
            digests[f"{part} of {key}"] = digest
    return digests


def _digests(model: ModelConfig) -> dict[str, str]:
    """Of a model that has no files of its own, its config.json's alone."""
    if model.path == DEMO:
        return {"config.json": config_digest(demo_config())}
    if model.path.startswith(BUILTIN):
        return {"config.json": config_digest(read_model_json(model))}
    return checkpoint_digests(Path(model.path))
