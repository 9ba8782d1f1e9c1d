"""Live servers of several models, and what transformers says of each model."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from checkpoints import make_tokenizer
from families import VOCAB_SIZE
from live_server import LiveServer, live_server
from oracle import continue_greedily, load_oracle
from slice_clients import GENERATING, NUM_TOKENS, PROMPTS, Answers, slices_config
from transformers import BertConfig, BertForSequenceClassification, BertModel

ENCODER = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="session")
def model_paths(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """By the name that the model is served under."""
    paths = {name: checkpoint(family) for name, family in GENERATING.items()}
    folder = tmp_path_factory.mktemp("encoders")
    for name, kind in (("embedder", BertModel), ("reranker", BertForSequenceClassification)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            kind(BertConfig(**ENCODER, num_labels=1)).save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
        paths[name] = folder / name
    return paths


@pytest.fixture(scope="session")
def answers(model_paths: Mapping[str, Path]) -> Answers:
    """What transformers says after each of PROMPTS, by model."""
    tokenizer = make_tokenizer()
    return {
        name: [
            tokenizer.decode(continue_greedily(model, prompt, NUM_TOKENS)[0]) for prompt in PROMPTS
        ]
        for name in GENERATING
        for model in [load_oracle(model_paths[name])]
    }


@pytest.fixture(scope="session")
def two_ranks(
    model_paths: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A model with experts over both ranks, and four that are on one of them each."""
    folder = tmp_path_factory.mktemp("slices")
    slices = {
        "big": {"slice": {"compute_percent": 40, "memory_mb": 160}},
        "small": {"slice": {"compute_percent": 20, "memory_mb": 160}},
        "little": {"slice": {"compute_percent": 25, "memory_mb": 160, "mode": "hard"}},
        "embedder": {"slice": {"compute_percent": 10}},
        "reranker": {"slice": {"compute_percent": 10}},
    }
    with live_server(folder, 2, slices_config(model_paths, 2, slices, folder)) as server:
        yield server
