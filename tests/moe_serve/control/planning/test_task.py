"""What a model does, by its config.json."""

from typing import Any, get_args

import pytest

from moe_serve.config.unserved import SERVED_ARCHITECTURES
from moe_serve.control.planning.task import task_of
from moe_serve.encoders.families import EncoderFamily
from moe_serve.errors import UnsupportedError


def named(architecture: str, **fields: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **fields}


def test_models_with_a_kv_cache_generate() -> None:
    assert {task_of(named(name)) for name in SERVED_ARCHITECTURES} == {"generate"}


@pytest.mark.parametrize("family", get_args(EncoderFamily))
def test_encoders_embed_and_rerank(family: str) -> None:
    one_label = {"id2label": {"0": "LABEL_0"}}
    assert task_of(named(f"{family}Model")) == "embed"
    assert task_of(named(f"{family}ForMaskedLM", id2label={"0": "a", "1": "b"})) == "embed"
    assert task_of(named(f"{family}ForSequenceClassification", **one_label)) == "rerank"
    assert task_of(named(f"{family}ForSequenceClassification", num_labels=1)) == "rerank"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (named("T5EncoderModel"), ("T5EncoderModel", "Qwen3MoeForCausalLM", "XLMRoberta")),
        (named("BertForTokenClassification"), ("BertForTokenClassification", "...Model")),
        (named("Model"), ("architecture Model is",)),
        ({}, ("(none)",)),
        (named("BertForSequenceClassification"), ("2 labels", "1 label")),
        (
            named("RobertaForSequenceClassification", id2label={"0": "a", "1": "b", "2": "c"}),
            ("RobertaForSequenceClassification", "3 labels"),
        ),
    ],
)
def test_others_are_refused_by_name(config: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        task_of(config)
    assert all(word in str(refusal.value) for word in words)
