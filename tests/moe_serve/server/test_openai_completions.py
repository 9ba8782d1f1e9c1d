"""Plain completions through the openai client, against transformers' tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import NUM_SPECIAL, VOCAB_SIZE
from oracle import continue_greedily, load_oracle

NEW_TOKENS = 64
TEXTS = ["The router scores all of them", "她说:今天天气很好", "🙂"]


def id_prompts() -> list[list[int]]:
    generator = np.random.default_rng(7)
    return [generator.integers(NUM_SPECIAL, VOCAB_SIZE, length).tolist() for length in (1, 17, 70)]


@pytest.mark.parametrize("prompts", [TEXTS, id_prompts()], ids=["text", "token ids"])
def test_greedy_text_is_that_of_transformers(
    prompts: list[Any], complete: Callable[..., Any], oracle: Any
) -> None:
    answer = complete(prompt=prompts, max_tokens=NEW_TOKENS)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        expected, _ = oracle.continue_greedily(prompt, NEW_TOKENS)
        assert choice.text == oracle.text(expected)
        assert choice.finish_reason == "length" and choice.logprobs is None
        assert len(set(expected)) >= 20
    num_prompt_tokens = sum(len(oracle.ids(prompt)) for prompt in prompts)
    assert answer.usage.prompt_tokens == num_prompt_tokens
    assert answer.usage.completion_tokens == 3 * NEW_TOKENS
    assert answer.usage.total_tokens == num_prompt_tokens + 3 * NEW_TOKENS
    assert answer.object == "text_completion" and answer.model == "tiny"


def test_a_model_that_lacks_one_expert_says_something_else(
    complete: Callable[..., Any], oracle: Any
) -> None:
    choice = complete(prompt=TEXTS[0], max_tokens=NEW_TOKENS).choices[0]
    lacking = load_oracle(oracle.path)
    with torch.no_grad():
        lacking.model.layers[1].mlp.experts.down_proj[5] = 0
    tokens, _ = continue_greedily(lacking, oracle.ids(TEXTS[0]), NEW_TOKENS)
    assert choice.text != oracle.text(tokens)


@pytest.mark.parametrize("prompt", [TEXTS[1], id_prompts()[1]], ids=["text", "token ids"])
def test_a_stream_is_the_whole_text_in_pieces(prompt: Any, complete: Callable[..., Any]) -> None:
    whole = complete(prompt=prompt, max_tokens=32).choices[0]
    chunks = list(complete(prompt=prompt, max_tokens=32, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert len(chunks) > 20
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason == "length"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_the_usage_where_it_is_asked_for(complete: Callable[..., Any]) -> None:
    fields = {"prompt": TEXTS[:2], "max_tokens": 5}
    whole = complete(**fields)
    *chunks, last = complete(**fields, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == whole.usage.model_copy(
        update={"prompt_tokens_details": last.usage.prompt_tokens_details}
    )
    assert whole.usage.completion_tokens == 10
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    for choice in whole.choices:
        own = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert "".join(piece.text for piece in own) == choice.text


def test_sixteen_tokens_unless_asked_for_more(complete: Callable[..., Any]) -> None:
    assert complete(prompt=TEXTS[0]).usage.completion_tokens == 16
    assert complete(prompt=TEXTS[0], max_tokens=3).usage.completion_tokens == 3


def test_a_prompt_seen_before_is_read_from_the_prefix_cache(complete: Callable[..., Any]) -> None:
    prompt = np.random.default_rng(8).integers(NUM_SPECIAL, VOCAB_SIZE, 50).tolist()
    first, second = (complete(prompt=prompt, max_tokens=8) for _ in range(2))
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 48
    assert first.choices == second.choices
