"""The tests' own checkpoints can fail an engine: varied output that leans on every part."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import as_published
from families import FAMILIES, MOE_FAMILIES, NUM_SPECIAL, VOCAB_SIZE
from fp8_checkpoint import make_fp8, undo_fp8
from oracle import agrees_with, continue_greedily, load_oracle
from quick import quick_among
from transformers import AutoTokenizer

from moe_serve.weights.checkpoint import Checkpoint

NUM_NEW_TOKENS = 64
PROMPTS = [
    torch.randint(
        NUM_SPECIAL, VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(length)
    ).tolist()
    for length in (5, 30)
]
Make = Callable[..., Path]


@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_output_is_varied_and_leans_on_the_first_token(checkpoint: Make, family: str) -> None:
    model = load_oracle(checkpoint(family))
    for prompt in PROMPTS:
        tokens, logits = continue_greedily(model, prompt, NUM_NEW_TOKENS)
        assert len(set(tokens)) >= 20
        assert min(tokens) >= NUM_SPECIAL
        assert logits.shape == (NUM_NEW_TOKENS, VOCAB_SIZE)
        other = [NUM_SPECIAL if prompt[0] != NUM_SPECIAL else NUM_SPECIAL + 1, *prompt[1:]]
        assert agrees_with(model, prompt, tokens)
        assert not agrees_with(model, other, tokens)


@pytest.mark.parametrize("family", quick_among(MOE_FAMILIES))
def test_each_expert_sways_the_output(checkpoint: Make, family: str) -> None:
    model = load_oracle(checkpoint(family))
    tokens = [continue_greedily(model, prompt, NUM_NEW_TOKENS)[0] for prompt in PROMPTS]
    answers = list(zip(PROMPTS, tokens, strict=True))
    down_EDF = model.model.layers[-1].mlp.experts.down_proj.data
    for expert in range(down_EDF.shape[0]):
        kept = down_EDF[expert].clone()
        down_EDF[expert] = 0
        unchanged = all(agrees_with(model, prompt, answer) for prompt, answer in answers)
        down_EDF[expert] = kept
        assert not unchanged, f"expert {expert} does nothing"
    assert all(agrees_with(model, prompt, answer) for prompt, answer in answers)


@pytest.mark.parametrize("family", quick_among(FAMILIES))
def test_both_spellings_of_the_config_are_one_model(checkpoint: Make, family: str) -> None:
    published, plain = checkpoint(family), checkpoint(family, published_config=False)
    assert "rope_theta" in json.loads((published / "config.json").read_text())
    assert "rope_parameters" in json.loads((plain / "config.json").read_text())
    one, other = (
        continue_greedily(load_oracle(path), PROMPTS[1], 4)[1] for path in (published, plain)
    )
    assert torch.equal(one, other)


def test_seed_dtype_shards_and_overrides(checkpoint: Make) -> None:
    path = checkpoint("qwen3_moe", seed=5, dtype=torch.bfloat16, shard_bytes=300_000, num_experts=6)
    opened = Checkpoint.open(path)
    assert len({opened.stored(name).file for name in opened}) > 1
    assert {opened.stored(name).dtype for name in opened} == {"BF16"}
    assert opened.config["num_experts"] == 6
    assert "model.layers.0.mlp.experts.5.up_proj.weight" in opened
    assert "model.layers.0.mlp.experts.6.up_proj.weight" not in opened
    name = "model.layers.0.self_attn.q_proj.weight"
    first = Checkpoint.open(checkpoint("qwen3_moe")).read(name, (128, 96))
    assert not torch.equal(opened.read(name, (128, 96)), first.bfloat16())


def test_correction_bias_stays_in_float32(checkpoint: Make) -> None:
    opened = Checkpoint.open(checkpoint("deepseek_v3", dtype=torch.bfloat16))
    assert opened.stored("model.layers.1.mlp.gate.e_score_correction_bias").dtype == "F32"


def test_fp8_twin_is_near_and_varied(checkpoint: Make, tmp_path: Path) -> None:
    path = checkpoint("deepseek_v3", hidden_size=160)
    twin = undo_fp8(make_fp8(path, tmp_path / "fp8"), tmp_path / "plain")
    (_, logits), (tokens, twin_logits) = (
        continue_greedily(load_oracle(each), PROMPTS[1], NUM_NEW_TOKENS) for each in (path, twin)
    )
    assert len(set(tokens)) >= 20
    assert not torch.equal(logits[0], twin_logits[0])
    assert torch.corrcoef(torch.stack([logits[0], twin_logits[0]]))[0, 1] > 0.9


def test_tokenizer_has_bytes_for_any_text(checkpoint: Make) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    text = "Zürich — 专家混合 🚀\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = [{"role": "user", "content": "hi"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert len(tokenizer) == VOCAB_SIZE


def test_published_spelling_of_yarn() -> None:
    rope = {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}
    config = {"model_type": "deepseek_v2", "head_dim": 16, "dtype": "float32"}
    published = as_published(config | {"rope_parameters": rope})
    assert published["rope_scaling"] == {"type": "yarn", "factor": 4.0}
    assert published["rope_theta"] == 1e4
