"""Checkpoints of encoders that are not as they should be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_runs import load
from safetensors.torch import load_file, save_file

from moe_serve.encoders.memory import encoder_bytes
from moe_serve.encoders.module import module_class
from moe_serve.encoders.shape import read_shape
from moe_serve.errors import CheckpointError, UnsupportedError


@pytest.fixture
def copy(encoder_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_checkpoint("Roberta"), tmp_path / "copy"))


def rewrite(file: Path, **fields: Any) -> None:
    config = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**config, **fields}))


def test_a_missing_tensor_is_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .*layer\.1\.output\.dense"):
        load(copy)


def test_truncated_pickled_and_misshapen_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load(copy)
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled"):
        load(copy)
    (copy / "pytorch_model.bin").unlink()
    weights.write_bytes(content)
    rewrite(copy / "config.json", hidden_size=64)
    with pytest.raises(CheckpointError, match="cannot read"):
        load(copy)


def test_a_field_that_is_missing_is_named(copy: Path) -> None:
    rewrite(copy / "config.json", num_hidden_layers=None)
    with pytest.raises(CheckpointError, match="num_hidden_layers is None"):
        read_shape(copy)


def test_more_layers_than_the_weights_are_for_are_refused_at_once(copy: Path) -> None:
    rewrite(copy / "config.json", num_hidden_layers=10**6)
    with pytest.raises(CheckpointError, match=r"has \d+ tensors, too few for the 1000000 layers"):
        encoder_bytes(copy, "float32", 256)


def test_a_model_that_transformers_lacks_is_named() -> None:
    assert module_class("BertModel").__name__ == "BertModel"
    with pytest.raises(UnsupportedError, match=r"transformers 5\..* has no SoonBertModel"):
        module_class("SoonBertModel")


def test_the_context_is_the_shortest_that_the_files_name(copy: Path) -> None:
    assert read_shape(copy).context_length == 48
    rewrite(copy / "tokenizer_config.json", model_max_length=40)
    assert read_shape(copy).context_length == 40
    rewrite(copy / "sentence_bert_config.json", max_seq_length=30)
    assert read_shape(copy).context_length == 30
    rewrite(copy / "sentence_bert_config.json", max_seq_length=300)
    assert read_shape(copy).context_length == 48


def test_only_encoders_have_a_shape(copy: Path) -> None:
    rewrite(copy / "config.json", architectures=["RobertaForCausalLM"])
    with pytest.raises(UnsupportedError, match="RobertaForCausalLM"):
        read_shape(copy)


def test_what_fits_its_weights_and_not_together_is_refused(
    encoder_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(encoder_checkpoint("ModernBert"), tmp_path / "copy"))
    rewrite(copy / "config.json", head_dim=3)
    with pytest.raises(CheckpointError, match=r"transformers cannot compute .*: RuntimeError"):
        load(copy)


@pytest.mark.parametrize("named", [3, {"a": "b"}, True])
def test_an_architecture_that_is_no_list_is_refused_by_name(copy: Path, named: Any) -> None:
    rewrite(copy / "config.json", architectures=named)
    with pytest.raises(UnsupportedError, match=r"architecture .* is not served"):
        read_shape(copy)


def test_no_other_thread_gets_the_dtype_of_what_is_loaded(
    encoder_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch, "set_default_dtype", seen.append)
    engine, _ = load(encoder_checkpoint("ModernBert"), "bfloat16")
    module = engine._encoder.module
    assert {each.dtype for each in module.parameters()} == {torch.bfloat16}
    # Rotary frequencies stay exact.
    assert {each.dtype for each in module.buffers()} == {torch.float32}
    assert set(seen) <= {torch.float32}
