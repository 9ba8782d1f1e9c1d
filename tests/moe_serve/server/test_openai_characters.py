"""No event of a stream ever holds a part of a character."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import pytest

SHIP, SKY = "🚢", "天"


pytestmark = pytest.mark.slow


@pytest.fixture
def deltas(http: httpx.Client) -> Callable[..., list[str]]:
    """deltas(prompt, **fields): the texts of the events that have one, from the raw stream."""

    def read(prompt: str, **fields: Any) -> list[str]:
        body = {"prompt": prompt, "stream": True, "temperature": 0, **fields}
        body |= body.pop("extra_body", {})
        with http.stream("POST", "/v1/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = b"".join(response.iter_raw()).split(b"\n\n")
        assert events[-2:] == [b"data: [DONE]", b""]
        # Each event is decoded by itself: bytes of a cut character would not be UTF-8.
        chunks = [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events[:-2]]
        return [text for chunk in chunks if (text := chunk["choices"][0]["text"])]

    return read


@pytest.fixture
def spelled(spell: Callable[..., Any], oracle: Any) -> Callable[[str], dict[str, Any]]:
    """Fields that make the model say a text one byte at a time."""
    return lambda text: spell(oracle.byte_tokens(text))


def test_each_character_comes_whole(
    deltas: Callable[..., list[str]], spelled: Callable[[str], dict[str, Any]]
) -> None:
    assert deltas("Hello", **spelled(SHIP + SKY)) == [SHIP, SKY]


def test_the_same_in_a_chat(chat: Callable[..., Any], spelled: Callable[..., Any]) -> None:
    fields = spelled(SKY + SHIP)
    assert chat("Hello", **fields).choices[0].message.content == SKY + SHIP
    chunks = chat("Hello", **fields, stream=True)
    contents = [chunk.choices[0].delta.content for chunk in chunks]
    assert [content for content in contents if content] == [SKY, SHIP]


def test_a_character_that_the_limit_cuts_leaves_one_mark(
    deltas: Callable[..., list[str]],
    complete: Callable[..., Any],
    spelled: Callable[[str], dict[str, Any]],
) -> None:
    fields = spelled(SKY + SHIP) | {"max_tokens": 5}
    assert complete(prompt="Hello", **fields).choices[0].text == SKY + "\ufffd"
    assert deltas("Hello", **fields) == [SKY, "\ufffd"]


@pytest.mark.parametrize("stop", [SHIP, SKY + SHIP, "B" + SKY])
def test_a_stop_string_of_such_characters(
    stop: str,
    deltas: Callable[..., list[str]],
    complete: Callable[..., Any],
    spell: Callable[[Sequence[int]], dict[str, Any]],
    oracle: Any,
) -> None:
    tokens = oracle.byte_tokens("Q" + SKY + SHIP)
    fields = spell(tokens[:7]) | {"max_tokens": 8, "stop": stop}
    fields["logit_bias"][str(tokens[7])] = 20
    whole = "Q" + SKY + SHIP
    expected = whole.split(stop)[0]
    answer = complete(prompt="Hello", **fields)
    assert answer.choices[0].text == expected == "".join(deltas("Hello", **fields))
    assert answer.choices[0].finish_reason == ("stop" if stop in whole else "length")


@pytest.mark.parametrize("prompt", ["今天天气很好", "\u00ff"])
def test_a_greedy_text_of_broken_characters_is_that_of_transformers(
    prompt: str, deltas: Callable[..., list[str]], oracle: Any
) -> None:
    tokens, _ = oracle.continue_greedily(prompt, 48)
    text = oracle.text(tokens)
    assert "".join(deltas(prompt, max_tokens=48)) == text
    assert any(character >= "\u4e00" for character in text if character != "\ufffd")
