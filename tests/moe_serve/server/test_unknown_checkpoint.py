"""Checkpoints unlike all others here, over HTTP: odd widths, numbers of experts that no number of
ranks divides, another kind of tokenizer; transformers says what to answer."""

import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from checkpoints import quiet_transformers, randomise
from live_server import LiveServer, live_server, server_config
from oracle import continue_greedily, load_oracle
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

pytestmark = pytest.mark.slow

NEW_TOKENS = 48
SEED = 1234
TEXTS = (
    "import sys; def main(argv): return 0",
    "class Node:\n    def __init__",
    "x",
    "for key, value in sorted(table.items()): print(key)",
)
COMMON = {
    "vocab_size": 900,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 512,
}
SHAPES: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        "hidden_size": 120,
        "intermediate_size": 88,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "moe_intermediate_size": 36,
        "n_routed_experts": 10,
        "num_experts_per_tok": 3,
        "n_shared_experts": 2,
        "n_group": 5,
        "topk_group": 3,
        "first_k_dense_replace": 2,
        "q_lora_rank": 28,
        "kv_lora_rank": 20,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 20,
        "v_head_dim": 12,
        "routed_scaling_factor": 1.7,
    },
    "qwen3_moe": {
        "hidden_size": 80,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 24,
        "moe_intermediate_size": 40,
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "norm_topk_prob": False,
        "mlp_only_layers": [1],
    },
}


@dataclass(frozen=True)
class Unknown:
    """A checkpoint, and the text that transformers continues each of TEXTS with."""

    path: Path
    answers: list[str]


@pytest.fixture(scope="module", params=SHAPES)
def unknown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Unknown:
    path = tmp_path_factory.mktemp(request.param)
    write_model(path, request.param)
    tokenizer = write_tokenizer(path)
    model = load_oracle(path)
    answers = []
    for text in TEXTS:
        tokens, _ = continue_greedily(model, tokenizer(text).input_ids, NEW_TOKENS)
        assert len(set(tokens)) >= 20
        answers.append(tokenizer.decode(tokens, skip_special_tokens=True))
    return Unknown(path, answers)


def write_model(path: Path, model_type: str) -> None:
    """In several shards, with config.json as transformers writes it."""
    quiet_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        config = AutoConfig.for_model(model_type, **COMMON, **SHAPES[model_type])
        model = AutoModelForCausalLM.from_config(config)
        randomise(model)
    model.save_pretrained(path, max_shard_size="200KB")
    assert len(list(path.glob("*.safetensors"))) > 1


def write_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Unigram pieces of Python's own library, with blanks at the front of words."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=COMMON["vocab_size"],
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    library = Path(sysconfig.get_path("stdlib"))
    tokenizer.train([str(library / name) for name in ("ast.py", "json/decoder.py")], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(path)
    return fast


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_answers_are_transformers(
    num_ranks: int, deterministic: bool, unknown: Unknown, tmp_path: Path
) -> None:
    config = server_config(unknown.path, num_ranks, deterministic=deterministic)
    with live_server(tmp_path, num_ranks, config) as server:
        with ThreadPoolExecutor(len(TEXTS)) as pool:
            given = list(pool.map(lambda text: complete(server, text), TEXTS))
        server.drain()
        assert server.wait_for_end(20) == 0
    assert [choice["text"] for choice in given] == unknown.answers
    assert {choice["finish_reason"] for choice in given} == {"length"}


def complete(server: LiveServer, text: str) -> Mapping[str, Any]:
    body = {"prompt": text, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    choice: Mapping[str, Any] = answer.json()["choices"][0]
    return choice
