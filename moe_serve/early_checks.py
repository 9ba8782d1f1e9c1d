"""Files that a server needs besides its config, looked at before anything heavy is loaded."""

from pathlib import Path

from moe_serve.config.tree import Config
from moe_serve.config.validate import DEMO
from moe_serve.control.model_json import read_model_json, require_weights


def check_models(config: Config) -> None:
    """Refuse models that no rank could load.

    Raises:
        ConfigError: a model without weights, or a directory without a readable config.json.
    """
    require_weights(config)
    for model in config.models:
        if model.path != DEMO:
            read_model_json(model)


def check_front_end(config: Config) -> None:
    """Refuse, on the host of the front end, what that could not start with.

    Raises:
        ConfigError: a key file that cannot be read or has no keys.
        CheckpointError: a tokenizer that is missing or cannot be read.
    """
    from moe_serve.edge.auth import read_keys
    from moe_serve.edge.tokenizer_file import check_tokenizer

    if config.server.api_keys:
        read_keys(Path(config.server.api_keys))
    for model in config.models:
        if model.path != DEMO:
            check_tokenizer(Path(model.path))
