"""Log-probabilities in both of OpenAI's shapes, against transformers' logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

PROMPT = "她说:今天天气 and seventeen ships"
NEW_TOKENS = 24
NUM_TOP = 5


def token_name(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def streams(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_chat_logprobs(streams: bool, chat: Callable[..., Any], oracle: Any) -> None:
    answer = chat(
        PROMPT, max_tokens=NEW_TOKENS, logprobs=True, top_logprobs=NUM_TOP, stream=streams
    )
    choices = [chunk.choices[0] for chunk in answer] if streams else answer.choices
    parts = [choice.logprobs.content for choice in choices if choice.logprobs is not None]
    entries = [entry for part in parts for entry in part or ()]
    prompt = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    tokens, logits = oracle.continue_greedily(prompt, NEW_TOKENS)
    assert [bytes(entry.bytes) for entry in entries] == [oracle.bytes_of[token] for token in tokens]
    for entry, token, expected_V in zip(entries, tokens, logits.log_softmax(-1), strict=True):
        assert entry.token == token_name(oracle.bytes_of[token])
        assert entry.logprob == pytest.approx(float(expected_V[token]), abs=1e-4)
        best = expected_V.topk(NUM_TOP)
        ours = torch.tensor([top.logprob for top in entry.top_logprobs])
        assert torch.allclose(ours, best.values, rtol=0, atol=1e-4)
        assert [bytes(top.bytes) for top in entry.top_logprobs] == [
            oracle.bytes_of[int(token)] for token in best.indices
        ]


def test_completion_logprobs(streams: bool, complete: Callable[..., Any], oracle: Any) -> None:
    fields = {"prompt": PROMPT, "max_tokens": NEW_TOKENS, "logprobs": NUM_TOP}
    answer = complete(**fields, stream=streams)
    choices = [chunk.choices[0] for chunk in answer] if streams else answer.choices
    tokens, logits = oracle.continue_greedily(PROMPT, NEW_TOKENS)
    logprobs = [choice.logprobs for choice in choices]
    names = [name for part in logprobs for name in part.tokens]
    assert names == [token_name(oracle.bytes_of[token]) for token in tokens]
    ours = torch.tensor([value for part in logprobs for value in part.token_logprobs])
    expected_TV = logits.log_softmax(-1)
    expected = expected_TV.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert torch.allclose(ours, expected, rtol=0, atol=1e-4)
    tops = [top for part in logprobs for top in part.top_logprobs]
    for top, expected_V in zip(tops, expected_TV, strict=True):
        best = expected_V.topk(NUM_TOP)
        assert top == {
            token_name(oracle.bytes_of[int(token)]): pytest.approx(float(value), abs=1e-4)
            for value, token in zip(*best, strict=True)
        }


def test_offsets_point_into_the_text(streams: bool, complete: Callable[..., Any]) -> None:
    answer = complete(prompt=PROMPT, max_tokens=NEW_TOKENS, logprobs=0, stream=streams)
    choices = [chunk.choices[0] for chunk in answer] if streams else answer.choices
    text = "".join(choice.text for choice in choices)
    names = [name for choice in choices for name in choice.logprobs.tokens]
    offsets = [offset for choice in choices for offset in choice.logprobs.text_offset]
    assert offsets[0] == 0 and offsets == sorted(offsets) and len(offsets) == NEW_TOKENS
    whole = [pair for pair in zip(offsets, names, strict=True) if not pair[1].startswith("bytes:")]
    assert len(whole) > 5
    for offset, name in whole:
        # A broken character before it, still unfinished when it came, shows up just before it.
        assert text[offset:].lstrip("\ufffd").startswith(name.lstrip("\ufffd"))


def test_without_top_the_chosen_token_comes_alone(chat: Callable[..., Any]) -> None:
    choice = chat("Hello", max_tokens=4, logprobs=True).choices[0]
    assert len(choice.logprobs.content) == 4
    assert all(entry.top_logprobs == [] for entry in choice.logprobs.content)
    assert chat("Hello", max_tokens=4).choices[0].logprobs is None


def test_logprobs_end_with_the_text_at_a_stop_string(
    complete: Callable[..., Any], spell: Callable[..., Any], oracle: Any
) -> None:
    fields = spell(oracle.byte_tokens("QZJXK"))
    choice = complete(prompt=PROMPT, stop="JX", logprobs=0, **fields).choices[0]
    assert (choice.text, choice.finish_reason) == ("QZ", "stop")
    assert choice.logprobs.tokens == ["Q", "Z"]
