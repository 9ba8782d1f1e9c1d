"""A model's config.json before any rank has started; without torch."""

from typing import Any

from moe_serve.config.tree import ModelConfig
from moe_serve.config.validate import DEMO
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.demo_config import demo_config


def published_json(model: ModelConfig) -> dict[str, Any]:
    """The model's config.json; the demo's is known before its files are made."""
    return demo_config() if model.path == DEMO else read_model_json(model)
