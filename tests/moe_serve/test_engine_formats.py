"""Checkpoints as they are published: FP8 in blocks, several shards, half precision."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import GREEDY, NEW_TOKENS, engine, prompts_of, tokens_of
from families import VOCAB_SIZE
from fp8_checkpoint import (
    copy_all_but_weights,
    load_tensors,
    make_fp8,
    save_tensors,
    undo_fp8,
)
from quick import quick_among

Checkpoints = Callable[..., Path]
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]
# Of several blocks in each direction, the last of them cut short.
SIZES = {"hidden_size": 160, "intermediate_size": 200, "moe_intermediate_size": 136}
NUM_SHARDS = 3
SCALE = "model.layers.1.self_attn.o_proj.weight_scale_inv"
PROMPTS = prompts_of((5, 33, 64))


@pytest.fixture(scope="module")
def fp8_path(checkpoint: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp8")
    make_fp8(checkpoint("deepseek_v3", **SIZES), path, NUM_SHARDS)
    assert len(list(path.glob("*.safetensors"))) == NUM_SHARDS
    return path


@pytest.fixture(scope="module")
def expected(
    fp8_path: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> list[list[int]]:
    """What transformers answers with the same numbers in float32."""
    twin = undo_fp8(fp8_path, tmp_path_factory.mktemp("twin"))
    return reference(twin, PROMPTS, NEW_TOKENS)[0]


def answers(path: Path, device: str) -> list[list[int]]:
    with engine(path, device=device, tokens_per_step=50) as llm:
        return tokens_of(llm.generate(PROMPTS, GREEDY))


def test_sharded_fp8_gives_the_tokens_of_its_float32_twin(
    fp8_path: Path, device: str, expected: list[list[int]]
) -> None:
    assert answers(fp8_path, device) == expected
    assert all(len(set(tokens)) >= 20 for tokens in expected)


def test_one_wrong_scale_changes_the_tokens(
    fp8_path: Path, device: str, expected: list[list[int]], tmp_path: Path
) -> None:
    tensors = load_tensors(fp8_path)
    assert tensors[SCALE].shape == (2, 1)
    tensors[SCALE][1, 0] *= 2
    copy_all_but_weights(fp8_path, tmp_path)
    save_tensors(tensors, tmp_path, NUM_SHARDS)
    wrong = answers(tmp_path, device)
    assert all(ours != theirs for ours, theirs in zip(wrong, expected, strict=True))


@pytest.mark.parametrize("family", quick_among(["deepseek_v3", "llama"]))
def test_half_precision_is_close_and_closer_than_bfloat16(
    family: str, device: str, checkpoint: Checkpoints, reference: Reference
) -> None:
    path = checkpoint(family, dtype=torch.float16, shard_bytes=300_000)
    assert len(list(path.glob("*.safetensors"))) > 1
    expected = reference(path, PROMPTS, NEW_TOKENS)
    half = differences(path, device, "float16", *expected)
    # Where two experts score nearly alike, another one may be chosen: that token differs by more.
    assert half.median() < 0.03 and (family == "deepseek_v3" or half.max() < 0.1)
    assert differences(path, device, "bfloat16", *expected).median() > 0.06


def differences(
    path: Path, device: str, dtype: str, expected: list[list[int]], logits: list[torch.Tensor]
) -> torch.Tensor:
    """The most that any token's log-probability differs from float32's, of each step up to where
    another token is chosen."""
    every = replace(GREEDY, logprobs=VOCAB_SIZE)
    with engine(path, device=device, dtype=dtype) as llm:
        completions = llm.generate(PROMPTS, every)
    found = []
    for completion, tokens, logits_SV in zip(completions, expected, logits, strict=True):
        assert len(completion.token_ids) == NEW_TOKENS
        for step, pairs in enumerate(completion.top_logprobs):
            ids, values = zip(*pairs, strict=True)
            theirs_V = logits_SV[step].log_softmax(0)[list(ids)]
            found.append((torch.tensor(values) - theirs_V).abs().max())
            if completion.token_ids[step] != tokens[step]:
                break
    return torch.stack(found)
