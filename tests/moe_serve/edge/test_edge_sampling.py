"""Sampling fields as the engine gets them: defaults, ranges, lengths and seeds."""

from typing import Any

import pytest

from moe_serve.control.requests.client import ServedModel
from moe_serve.edge.bodies import ChatBody, CompletionBody, GenerationBody
from moe_serve.edge.errors import ContextLengthError
from moe_serve.edge.sampling import CHAT, COMPLETION, choice_seed, resolve_max_tokens
from moe_serve.edge.sampling import sampling_params as to_params
from moe_serve.errors import RequestError
from moe_serve.types import SamplingParams

MODEL = ServedModel("m", "/m", 100, 50, (2,))


def completion(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"prompt": "a", **fields})


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})


def test_null_is_the_default() -> None:
    names = [name for name in CompletionBody.model_fields if name != "prompt"]
    body = completion(**dict.fromkeys(names))
    assert to_params(body, MODEL, 16) == SamplingParams(max_tokens=16)
    assert body.stop_strings == ()
    assert not body.includes_usage


def test_all_sampling_fields_arrive() -> None:
    body = completion(
        temperature=0,
        top_p=0.5,
        top_k=-1,
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=-2,
        frequency_penalty=2,
        stop_token_ids=[3],
        logit_bias={"4": -100, "5": 0.5},
        logprobs=0,
        ignore_eos=True,
    )
    assert to_params(body, MODEL, 9) == SamplingParams(
        temperature=0,
        top_p=0.5,
        top_k=0,
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias=((4, -100.0), (5, 0.5)),
        logprobs=0,
        stop_token_ids=(3,),
        max_tokens=9,
        ignore_eos=True,
    )
    assert to_params(completion(top_k=7), MODEL, 9).top_k == 7


def test_what_float32_or_int64_cannot_hold_stays_outside() -> None:
    assert to_params(completion(top_k=10**30), MODEL, 9).top_k == 50
    assert to_params(completion(temperature=1e-300), MODEL, 9).temperature == 0
    assert to_params(completion(temperature=1e-4), MODEL, 9).temperature == 1e-4


@pytest.mark.parametrize(
    "bias", [{"x": 1}, {"50": 1}, {"-1": 1}, {"1.5": 1}, {"9" * 5000: 1}, {"01": 1}]
)
def test_logit_bias_needs_token_ids_of_the_model(bias: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="logit_bias"):
        to_params(completion(logit_bias=bias), MODEL, 1)


def test_stop_token_ids_are_the_models() -> None:
    with pytest.raises(RequestError, match=r"token id 50 is not in 0\.\.49"):
        to_params(completion(stop_token_ids=[50]), MODEL, 1)


def test_chat_logprobs_and_length_fields() -> None:
    assert chat().num_logprobs is None
    assert chat(logprobs=False, top_logprobs=3).num_logprobs is None
    assert chat(logprobs=True).num_logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).num_logprobs == 3
    assert chat(max_tokens=5).asked_max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).asked_max_tokens == 6


def test_only_the_routes_know_their_logprobs() -> None:
    with pytest.raises(NotImplementedError):
        _ = GenerationBody().num_logprobs


def test_lengths() -> None:
    assert resolve_max_tokens(None, 90, MODEL, CHAT) == 10
    assert resolve_max_tokens(None, 10, MODEL, COMPLETION) == 16
    assert resolve_max_tokens(None, 90, MODEL, COMPLETION) == 10
    assert resolve_max_tokens(10, 90, MODEL, CHAT) == 10
    with pytest.raises(ContextLengthError, match=r"100 tokens, you requested 101 .90 in the mess"):
        resolve_max_tokens(11, 90, MODEL, CHAT)
    with pytest.raises(ContextLengthError, match="100 tokens, the prompt alone have 100"):
        resolve_max_tokens(None, 100, MODEL, COMPLETION)
    with pytest.raises(RequestError, match="no tokens"):
        resolve_max_tokens(None, 0, MODEL, COMPLETION)


def test_seeds_differ_by_choice_and_repeat_by_request() -> None:
    assert [choice_seed(7, index) for index in range(3)] == [7, 8, 9]
    assert choice_seed(-1, 0) == 2**63 - 1
    assert choice_seed(2**63 - 1, 1) == 0
    drawn = {choice_seed(None, 0) for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**63 for seed in drawn)
