"""A checkpoint that thinks between tags: its reasoning comes apart from its answer."""

from collections.abc import Callable
from typing import Any

import pytest
from live_server import LiveServer
from openai import OpenAI

pytestmark = pytest.mark.slow

OPENED = {"enable_thinking": True}
Think = Callable[..., Any]


@pytest.fixture(scope="module")
def think(
    thinking_server: LiveServer,
    connect: Callable[..., OpenAI],
    spell: Callable[..., dict[str, Any]],
    thinking_tokens: Callable[[str], list[int]],
) -> Any:
    """think(text, stream, template_fields): a chat whose answer is that text, tags included."""
    client = connect(thinking_server)

    def ask(text: str, stream: bool, template_fields: dict[str, Any], **more: Any) -> Any:
        fields = spell(thinking_tokens(text))
        fields["extra_body"]["chat_template_kwargs"] = template_fields
        messages: Any = [{"role": "user", "content": "Hello"}]
        return client.chat.completions.create(
            model="tiny", messages=messages, temperature=0, stream=stream, **(fields | more)
        )

    with client:
        yield ask


CASES = pytest.mark.parametrize(
    ("text", "template_fields", "reasoning", "content"),
    [
        ("<think>QZ</think>天", {}, "QZ", "天"),
        ("天</think>QZ", OPENED, "天", "QZ"),
        ("<think>QZJ", {}, "QZJ", ""),
        ("QZ天", {}, None, "QZ天"),
        ("天Q", OPENED, "天Q", ""),
    ],
)


@CASES
def test_whole(
    text: str,
    template_fields: dict[str, Any],
    reasoning: str | None,
    content: str,
    think: Think,
) -> None:
    message = think(text, False, template_fields).choices[0].message
    assert (message.reasoning_content, message.content) == (reasoning, content)


@CASES
def test_streamed(
    text: str,
    template_fields: dict[str, Any],
    reasoning: str | None,
    content: str,
    think: Think,
) -> None:
    deltas = [chunk.choices[0].delta for chunk in think(text, True, template_fields)]
    parts = [(getattr(delta, "reasoning_content", None), delta.content) for delta in deltas]
    assert "".join(part[0] or "" for part in parts) == (reasoning or "")
    assert "".join(part[1] or "" for part in parts) == content
    kinds = [bool(part[1]) for part in parts if any(part)]
    assert kinds == sorted(kinds), "reasoning came after content"


def test_the_tags_count_as_tokens_and_a_stop_string_may_end_the_thinking(think: Think) -> None:
    whole = think("<think>QZ</think>天", False, {})
    assert whole.usage.completion_tokens == 7
    stopped = think("<think>QZ</think>天", False, {}, stop="Z")
    assert stopped.choices[0].message.reasoning_content == "Q"
    assert stopped.choices[0].message.content == ""
    assert stopped.choices[0].finish_reason == "stop" and stopped.usage.completion_tokens == 3
