"""What a model does, by the architecture that its config.json names; without torch."""

from collections.abc import Mapping
from typing import Any

from moe_serve.config.unserved import SERVED_ARCHITECTURES
from moe_serve.encoders.families import architecture_of, encoder_task
from moe_serve.types import Task


def task_of(model_json: Mapping[str, Any]) -> Task:
    """What the model of a config.json does.

    Raises:
        UnsupportedError: an architecture that is not served, or a classifier whose number of
            labels makes it no reranker.
    """
    if architecture_of(model_json) in SERVED_ARCHITECTURES:
        return "generate"
    return encoder_task(model_json)
