"""Chat through the openai client, with the checkpoint's own template."""

from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

NEW_TOKENS = 32
QUESTION = "Which experts answer? 今天"
CONVERSATION: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Seventeen ships"}]},
    {"role": "assistant", "content": "sailed."},
    {"role": "user", "content": QUESTION},
]


def template(messages: list[Any]) -> str:
    """The checkpoint's template, by hand."""
    lines = []
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        lines.append(f"<|im_start|>{message['role']}\n{text}<|im_end|>\n")
    return "".join(lines) + "<|im_start|>assistant\n"


def test_greedy_chat_is_that_of_transformers(client: OpenAI, oracle: Any) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=CONVERSATION, temperature=0, max_completion_tokens=NEW_TOKENS
    )
    prompt = template(CONVERSATION)
    expected, _ = oracle.continue_greedily(prompt, NEW_TOKENS)
    (choice,) = answer.choices
    assert choice.message.content == oracle.text(expected)
    assert choice.message.role == "assistant" and choice.finish_reason == "length"
    assert answer.object == "chat.completion" and answer.model == "tiny"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(oracle.ids(prompt))
    assert answer.usage.completion_tokens == NEW_TOKENS


@pytest.mark.parametrize("includes_usage", [False, True])
def test_a_chat_stream_is_the_whole_in_pieces(
    includes_usage: bool, chat: Callable[..., Any]
) -> None:
    whole = chat(QUESTION, max_tokens=NEW_TOKENS)
    options = {"stream_options": {"include_usage": True}} if includes_usage else {}
    chunks = list(chat(QUESTION, max_tokens=NEW_TOKENS, stream=True, **options))
    if includes_usage:
        usage = chunks.pop()
        assert usage.choices == []
        assert usage.usage.completion_tokens == whole.usage.completion_tokens
        assert usage.usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks)
    pieces = [chunk.choices[0] for chunk in chunks]
    assert pieces[0].delta.role == "assistant" and pieces[0].delta.content == ""
    text = "".join(piece.delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["length"]
    assert pieces[-1].finish_reason == "length" and len(pieces) > 20
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_the_clients_stream_helper_sees_the_same(client: OpenAI, chat: Callable[..., Any]) -> None:
    whole = chat(QUESTION, max_tokens=10)
    with client.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=10,
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.current_completion_snapshot
    content = whole.choices[0].message.content
    assert "".join(deltas) == final.choices[0].message.content == content


def test_without_a_limit_a_chat_ends_where_the_context_does(
    chat: Callable[..., Any], oracle: Any
) -> None:
    context, room = 1024, 20
    filler = oracle.byte_tokens("x")
    overhead = len(oracle.ids(template([{"role": "user", "content": ""}])))
    question = oracle.text(filler) * (context - overhead - room)
    answer = chat(question)
    assert answer.usage.completion_tokens == room and answer.usage.total_tokens == context
    assert answer.choices[0].finish_reason == "length"
