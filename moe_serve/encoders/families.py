"""The encoders that are served, by the architecture that a config.json names; without torch."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from moe_serve.config.unserved import SERVED_ARCHITECTURES
from moe_serve.errors import UnsupportedError
from moe_serve.types import Task

EncoderFamily = Literal[
    "Albert",
    "Bert",
    "Camembert",
    "DistilBert",
    "Electra",
    "EuroBert",
    "Gte",
    "ModernBert",
    "MPNet",
    "NomicBert",
    "Roberta",
    "XLMRoberta",
]
# Checkpoints of embedding models often name the head that they were pretrained with.
_EMBED = ("Model", "ForMaskedLM")
_RERANK = "ForSequenceClassification"


def encoder_task(model_json: Mapping[str, Any]) -> Task:
    """What the encoder of a config.json does: embed, or rerank.

    Raises:
        UnsupportedError: the architecture is none that is served, or a classifier whose number of
            labels makes it no reranker.
    """
    family, architecture = encoder_family(model_json), architecture_of(model_json)
    if architecture != family + _RERANK:
        return "embed"
    if (count := num_labels(model_json)) != 1:
        raise UnsupportedError(
            f"model: {architecture} with {count} labels is not served; a reranker has 1 label"
        )
    return "rerank"


def encoder_family(model_json: Mapping[str, Any]) -> EncoderFamily:
    """The family of an encoder.

    Raises:
        UnsupportedError: the architecture is none that is served.
    """
    architecture = architecture_of(model_json)
    for family in get_args(EncoderFamily):
        if architecture in [family + head for head in (*_EMBED, _RERANK)]:
            return family  # type: ignore[no-any-return]
    raise UnsupportedError(
        f"model: architecture {architecture} is not served; served are "
        f"{', '.join(SERVED_ARCHITECTURES)}, which generate text, and encoders, named "
        f"...{_EMBED[0]}, ...{_EMBED[1]} or ...{_RERANK}, of {', '.join(get_args(EncoderFamily))}"
    )


def architecture_of(model_json: Mapping[str, Any]) -> str:
    names = model_json.get("architectures") or "(none)"
    return str(names[0] if isinstance(names, list) else names)


def num_labels(model_json: Mapping[str, Any]) -> int:
    """As transformers counts them: 2 where config.json does not say."""
    named = model_json.get("id2label")
    return len(named) if named else int(model_json.get("num_labels", 2))
