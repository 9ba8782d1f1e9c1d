"""Sampling fields through the openai client: seeds, choices, biases and penalties."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

PROMPT = "A mixture of experts"
NEW_TOKENS = 24


def texts(answer: Any) -> list[str]:
    return [choice.text for choice in answer.choices]


def test_a_seed_gives_two_choices_that_differ_and_come_again(complete: Callable[..., Any]) -> None:
    fields = {"prompt": PROMPT, "n": 2, "temperature": 1, "max_tokens": NEW_TOKENS}
    fields["extra_body"] = {"ignore_eos": True}
    first, second, other = (complete(**fields, seed=seed) for seed in (11, 11, 12))
    assert [choice.index for choice in first.choices] == [0, 1]
    assert texts(first) == texts(second)
    assert len({*texts(first), *texts(other)}) >= 3
    assert texts(first)[0] != texts(first)[1] and texts(first) != texts(other)
    assert first.usage.completion_tokens == 2 * NEW_TOKENS
    assert first.usage.prompt_tokens == second.usage.prompt_tokens


def test_streamed_choices_are_the_same_ones(chat: Callable[..., Any]) -> None:
    fields = {"n": 2, "seed": 5, "temperature": 0.9, "max_tokens": NEW_TOKENS}
    whole = chat(PROMPT, **fields)
    pieces = [piece for chunk in chat(PROMPT, **fields, stream=True) for piece in chunk.choices]
    for choice in whole.choices:
        own = [piece for piece in pieces if piece.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(piece.delta.content or "" for piece in own) == choice.message.content
        assert own[-1].finish_reason == choice.finish_reason
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_without_a_seed_answers_differ(complete: Callable[..., Any]) -> None:
    answer = complete(prompt=PROMPT, n=3, temperature=1, max_tokens=NEW_TOKENS)
    assert len(set(texts(answer))) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1, "top_p": 1e-6},
        {"temperature": 1, "extra_body": {"top_k": 1}},
        {"temperature": 1, "extra_body": {"min_p": 1.0}},
    ],
    ids=["temperature", "top_p", "top_k", "min_p"],
)
def test_fields_that_leave_only_the_best_token(
    fields: dict[str, Any], complete: Callable[..., Any], oracle: Any
) -> None:
    tokens, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS)
    assert texts(complete(prompt=PROMPT, max_tokens=NEW_TOKENS, **fields)) == [oracle.text(tokens)]


def test_a_bias_forces_a_token_or_forbids_it(
    complete: Callable[..., Any], chat: Callable[..., Any], oracle: Any
) -> None:
    (token,) = oracle.byte_tokens("Q")
    forced = {"max_tokens": 6, "logit_bias": {str(token): 100}}
    assert texts(complete(prompt=PROMPT, temperature=1, **forced)) == ["Q" * 6]
    assert chat(PROMPT, **forced).choices[0].message.content == "Q" * 6

    def without(logits_V: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        logits_V[list(banned)] -= 100
        return logits_V

    usual, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS)
    banned = dict(Counter(usual).most_common(4))
    expected, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS, without)
    biases = {str(token): -100 for token in banned}
    answer = complete(prompt=PROMPT, max_tokens=NEW_TOKENS, logit_bias=biases)
    assert texts(answer) == [oracle.text(expected)] != [oracle.text(usual)]


@pytest.mark.parametrize(
    ("presence", "frequency", "repetition"),
    [(1.5, 0, 1), (0, 1.5, 1), (-0.5, -0.5, 1), (0, 0, 1.6), (0.5, 0.5, 1.3)],
)
def test_penalties_are_those_of_openai(
    presence: float,
    frequency: float,
    repetition: float,
    complete: Callable[..., Any],
    oracle: Any,
) -> None:
    def penalise(logits_V: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        for token in {*oracle.ids(PROMPT), *tokens}:
            logits_V[token] *= 1 / repetition if logits_V[token] > 0 else repetition
        for token, count in Counter(tokens).items():
            logits_V[token] -= presence + frequency * count
        return logits_V

    expected, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS, penalise)
    usual, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS)
    answer = complete(
        prompt=PROMPT,
        max_tokens=NEW_TOKENS,
        presence_penalty=presence,
        frequency_penalty=frequency,
        extra_body={"repetition_penalty": repetition},
    )
    assert texts(answer) == [oracle.text(expected)]
    assert expected != usual
