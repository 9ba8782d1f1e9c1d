"""`moe_serve --check` of several models: the shipped config, and what does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_tokenizer
from transformers import BertConfig, BertModel

from moe_serve.check import check
from moe_serve.config.load import load_config
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.errors import PlacementError

CONFIG = Path(__file__).parents[2] / "configs" / "slices.yaml"
BUILTIN = ("qwen3_30b_a3b", "qwen3_8b", "llama_3_1_8b")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Published configs for the models that generate, and a small encoder that embeds."""
    path = tmp_path_factory.mktemp("embedder")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        BertModel(BertConfig(**shape, intermediate_size=32, vocab_size=512)).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    names = [f"models.{number}.path=builtin:{name}" for number, name in enumerate(BUILTIN)]
    return [*names, f"models.3.path={path}"]


def checked(
    capsys: pytest.CaptureFixture[str], overrides: list[str], *, as_json: bool = True
) -> str:
    config = load_config(CONFIG, overrides, to_serve=False)
    capsys.readouterr()
    try:
        assert check(config, LaunchedWorld(), as_json=as_json) == 0
    finally:
        found = capsys.readouterr().out
    return found


def test_the_shipped_config_fits(capsys: pytest.CaptureFixture[str], overrides: list[str]) -> None:
    found: dict[str, Any] = json.loads(checked(capsys, overrides))
    assert found["problems"] == []
    ranks = {each["model"]["name"]: each["rank"] for each in found["slices"]}
    assert ranks["big"] == "all"
    assert {ranks["assistant"], ranks["batch"]} == {0, 1}, "one rank has no room for both"
    assert {each["task"] for each in found["slices"]} == {"generate", "embed"}
    for each in found["slices"]:
        if each["task"] == "generate":
            assert each["num_tokens"] >= each["model"]["max_context"]
    for rank in found["ranks"]:
        assert rank["taken"] <= rank["budget"]


def test_people_see_a_row_for_each_model(
    capsys: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    text = checked(capsys, overrides, as_json=False)
    for name in ("big", "assistant", "batch", "embedder"):
        assert name in text
    assert "every model has room in its slice" in text


def test_processors_that_are_not_there_are_refused_before_they_are_divided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    monkeypatch.setattr("moe_serve.check.cores_per_rank", lambda num_ranks: 4)
    own = [
        *overrides,
        *("models.0.slice.compute_percent=1", "models.0.slice.memory_mb=40000"),
        *("models.1.slice.isolate=sm", "models.1.rank=1", "models.1.slice.compute_percent=80"),
        *("models.2.rank=0", "models.2.slice.compute_percent=1"),
    ]
    # Whoever declares the memory may mean another host than this one.
    checked(capsys, own)
    monkeypatch.setattr("moe_serve.check.host_memory", lambda: 160 << 30)
    with pytest.raises(
        PlacementError, match=r"rank 1: 20 % of 4 cores is 0\.80, and a part has one"
    ):
        checked(capsys, [*own, "pools.0.memory=0", "models.1.slice.compute_percent=20"])
    checked(capsys, [*own, "pools.0.memory=0"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("models.1.slice.compute_percent=90", "no rank has room for assistant.*compute 90%"),
        ("models.1.slice.memory_mb=40000", "no rank has room for assistant.*memory"),
        ("models.1.slice.memory_mb=900", "assistant needs .* MiB for weights.*, and has 900"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_figures(
    capsys: pytest.CaptureFixture[str], overrides: list[str], override: str, said: str
) -> None:
    with pytest.raises(PlacementError, match=said):
        checked(capsys, [*overrides, override])
