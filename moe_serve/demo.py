"""The demo model: DeepSeek-V3's architecture, tiny and random, made in the user's cache."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from moe_serve.config.tree import Config
from moe_serve.config.validate import DEMO
from moe_serve.demo_config import END_ID, PAD_ID, demo_config
from moe_serve.demo_tokenizer import find_word_ids, make_tokenizer, save_tokenizer
from moe_serve.errors import CheckpointError

VERSION = 1
SEED = 2024


def demo_checkpoint(cache_dir: Path | None = None) -> Path:
    """The directory of the demo checkpoint, made at the first call.

    Processes may call this at once: each makes its own copy, and the first to be ready stays.

    Args:
        cache_dir: `moe_serve` in the user's cache directory if None.

    Raises:
        CheckpointError: the cache cannot be written to.
    """
    cache = cache_dir or _user_cache() / "moe_serve"
    final = cache / f"demo-{VERSION}"
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
            write_checkpoint(Path(scratch) / "demo", demo_config())
            _settle(Path(scratch) / "demo", final)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the demo model to {cache}: {error.strerror}; "
            "set XDG_CACHE_HOME to a directory that can be written to"
        ) from error
    return final


def with_demo(config: Config) -> Config:
    """The config with the demo model's directory, which is made if need be, for its name.

    Raises:
        CheckpointError: as `demo_checkpoint` has it.
    """
    models = tuple(
        replace(model, name=model.name or DEMO, path=str(demo_checkpoint()))
        if model.path == DEMO
        else model
        for model in config.models
    )
    return replace(config, models=models)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _settle(made: Path, final: Path) -> None:
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def write_checkpoint(directory: Path, config: dict[str, Any]) -> None:
    """A model of random weights in a new directory.

    Args:
        config: the demo's config.json, perhaps of other sizes.
    """
    directory.mkdir()
    tokenizer = make_tokenizer()
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    save_tokenizer(tokenizer, directory)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    ends = {"eos_token_id": END_ID, "pad_token_id": PAD_ID}
    (directory / "generation_config.json").write_text(json.dumps(ends, indent=1))
    tensors = _make_tensors(config, [END_ID, *find_word_ids(tokenizer)])
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _make_tensors(config: dict[str, Any], spoken_ids: list[int]) -> dict[str, torch.Tensor]:
    """Random weights; tokens other than the spoken ones get logits of zero, so never win."""
    generator = torch.Generator().manual_seed(SEED)
    tensors = {}
    for name, shape in _shapes(config):
        # Uniform numbers are the same bits on every machine; normal ones are not.
        noise = 2 * torch.rand(*shape, generator=generator) - 1
        if name.endswith("e_score_correction_bias"):
            tensors[name] = 0.1 * noise
        elif "norm" in name:
            tensors[name] = (1 + 0.3 * noise).bfloat16()
        else:
            tensors[name] = (noise * _gain(name) * (3 / shape[-1]) ** 0.5).bfloat16()
    head = torch.zeros_like(tensors["lm_head.weight"])
    head[spoken_ids] = tensors["lm_head.weight"][spoken_ids]
    return tensors | {"lm_head.weight": head}


def _gain(name: str) -> float:
    """Standard deviation of a projection's output, for inputs of unit size."""
    if name.startswith("lm_head") or ".q_b_proj." in name:
        return 3.0
    return 2.0 if ".mlp.experts." in name or ".gate." in name else 1.0


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, vocab_size = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocab_size, width)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (width,)
        yield prefix + "post_attention_layernorm.weight", (width,)
        yield from _attention_shapes(config, prefix + "self_attn.")
        if layer < config["first_k_dense_replace"]:
            yield from _mlp_shapes(prefix + "mlp.", width, config["intermediate_size"])
        else:
            yield from _moe_shapes(config, prefix + "mlp.")
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (vocab_size, width)


def _attention_shapes(config: dict[str, Any], prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    query, latent = config["q_lora_rank"], config["kv_lora_rank"]
    plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    value = config["v_head_dim"]
    yield prefix + "q_a_proj.weight", (query, width)
    yield prefix + "q_a_layernorm.weight", (query,)
    yield prefix + "q_b_proj.weight", (heads * (plain + rotary), query)
    yield prefix + "kv_a_proj_with_mqa.weight", (latent + rotary, width)
    yield prefix + "kv_a_layernorm.weight", (latent,)
    yield prefix + "kv_b_proj.weight", (heads * (plain + value), latent)
    yield prefix + "o_proj.weight", (width, heads * value)


def _moe_shapes(config: dict[str, Any], prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, expert_width = config["hidden_size"], config["moe_intermediate_size"]
    yield prefix + "gate.weight", (config["n_routed_experts"], width)
    yield prefix + "gate.e_score_correction_bias", (config["n_routed_experts"],)
    for expert in range(config["n_routed_experts"]):
        yield from _mlp_shapes(f"{prefix}experts.{expert}.", width, expert_width)
    shared_width = expert_width * config["n_shared_experts"]
    yield from _mlp_shapes(prefix + "shared_experts.", width, shared_width)


def _mlp_shapes(prefix: str, width: int, inner_width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield prefix + "gate_proj.weight", (inner_width, width)
    yield prefix + "up_proj.weight", (inner_width, width)
    yield prefix + "down_proj.weight", (width, inner_width)
