"""The model's config.json, from a checkpoint or shipped as data."""

import json
from pathlib import Path

import pytest

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.config.validate import model_name
from moe_serve.control.planning.model_json import read_model_json, require_weights
from moe_serve.errors import ConfigError


def test_a_checkpoint_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    assert read_model_json(ModelConfig(path=str(tmp_path))) == {"hidden_size": 8}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no readable config.json"),
        ("{", "config.json is not JSON"),
        ("[]", "holds no JSON object"),
    ],
)
def test_a_directory_that_is_no_checkpoint(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=said):
        read_model_json(ModelConfig(path=str(tmp_path)))


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path: no such directory: .*/missing"):
        read_model_json(ModelConfig(path=str(tmp_path / "missing")))


def test_a_builtin_model_is_known_by_name() -> None:
    content = read_model_json(ModelConfig(path="builtin:deepseek_v3"))
    assert content["architectures"] == ["DeepseekV3ForCausalLM"]
    with pytest.raises(ConfigError, match='named "deepseek_v4"; did you mean "deepseek_v3"'):
        read_model_json(ModelConfig(path="builtin:deepseek_v4"))
    with pytest.raises(ConfigError, match="no built-in model"):
        read_model_json(ModelConfig(path="builtin:../moe_placement"))


def test_a_builtin_model_cannot_be_served() -> None:
    pools = (PoolConfig(name="host", device="cpu"),)
    require_weights(Config(models=(ModelConfig(path="/models/x"),), pools=pools))
    with pytest.raises(ConfigError, match=r"weights wanted: --set model\.path="):
        require_weights(Config(models=(ModelConfig(path="builtin:x"),), pools=pools))


@pytest.mark.parametrize(
    ("path", "name"),
    [("/models/Tiny", "Tiny"), ("demo", "demo"), ("builtin:qwen", "qwen"), ("/", "model")],
)
def test_the_name_that_requests_use(path: str, name: str) -> None:
    assert model_name(ModelConfig(path=path)) == name
    assert model_name(ModelConfig(path=path, name="mine")) == "mine"
