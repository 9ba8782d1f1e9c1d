"""Where an answer ends: stop strings, stop tokens, the end of sequence, the limit."""

from collections.abc import Callable
from typing import Any

import pytest

PROMPT = "The router scores all of them"
NEW_TOKENS = 32
END_OF_SEQUENCE = 2


@pytest.fixture(scope="module")
def greedy(oracle: Any) -> list[int]:
    tokens, _ = oracle.continue_greedily(PROMPT, NEW_TOKENS)
    return list(tokens)


def text_and_end(answer: Any, stream: bool) -> tuple[str, str, int]:
    """Text, finish reason and completion tokens."""
    if not stream:
        choice = answer.choices[0]
        return choice.text, choice.finish_reason, answer.usage.completion_tokens
    *chunks, last = answer
    text = "".join(chunk.choices[0].text for chunk in chunks)
    return text, chunks[-1].choices[0].finish_reason, last.usage.completion_tokens


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def ending(request: pytest.FixtureRequest, complete: Callable[..., Any]) -> Callable[..., Any]:
    """ending(**fields) -> text, finish reason and completion tokens."""
    fields = {"stream": True, "stream_options": {"include_usage": True}} if request.param else {}

    def run(**more: Any) -> tuple[str, str, int]:
        more = {"prompt": PROMPT, "max_tokens": NEW_TOKENS} | more
        return text_and_end(complete(**fields, **more), request.param)

    return run


def stop_across_tokens(oracle: Any, tokens: list[int]) -> tuple[str, int]:
    """A string of two tokens' characters that is found nowhere before, and where it ends."""
    for place in range(8, NEW_TOKENS):
        before = oracle.text(tokens[: place - 1])
        pair = [oracle.text([token]) for token in tokens[place - 1 : place + 1]]
        stop = pair[0][-1:] + pair[1][:1]
        whole = oracle.text(tokens[: place + 1])
        if len(stop) == 2 and "\ufffd" not in stop and whole.find(stop) >= len(before):
            return stop, place + 1
    raise AssertionError("the greedy text has no such string")


def test_a_stop_string_across_tokens_cuts_text_and_usage(
    ending: Callable[..., Any], oracle: Any, greedy: list[int]
) -> None:
    stop, num_tokens = stop_across_tokens(oracle, greedy)
    text = oracle.text(greedy)
    assert ending(stop=stop) == (text[: text.index(stop)], "stop", num_tokens)


def test_the_first_of_several_stop_strings_counts(
    ending: Callable[..., Any], oracle: Any, greedy: list[int]
) -> None:
    stop, num_tokens = stop_across_tokens(oracle, greedy)
    text = oracle.text(greedy)
    later = text[text.index(stop) + 4 :][:3]
    stops = [later, "never said", stop]
    assert ending(stop=stops) == (text[: text.index(stop)], "stop", num_tokens)


def test_a_stop_string_that_only_begins_is_shown(
    ending: Callable[..., Any], oracle: Any, greedy: list[int]
) -> None:
    text = oracle.text(greedy)
    assert ending(stop=text[-3:] + "!?") == (text, "length", NEW_TOKENS)


def test_a_stop_token_ends_the_text_before_it(
    ending: Callable[..., Any], oracle: Any, greedy: list[int]
) -> None:
    place = next(n for n in range(5, NEW_TOKENS) if greedy[n] not in greedy[:n])
    stops = {"stop_token_ids": [0, greedy[place]]}
    expected = (oracle.text(greedy[:place]), "stop", place + 1)
    assert ending(extra_body=stops) == expected


def test_the_end_of_sequence_ends_unless_it_is_ignored(
    ending: Callable[..., Any], spell: Callable[..., Any], oracle: Any
) -> None:
    fields = spell([*oracle.byte_tokens("QZ"), END_OF_SEQUENCE, *oracle.byte_tokens("JX")])
    assert ending(**fields) == ("QZ", "stop", 3)
    fields["extra_body"]["ignore_eos"] = True
    assert ending(**fields) == ("QZJX", "length", 5)


def test_a_chat_stops_too(chat: Callable[..., Any]) -> None:
    whole = chat("Hello", max_tokens=NEW_TOKENS).choices[0].message.content
    stop = next(letter for letter in whole[6:] if letter not in "\ufffd" + whole[:6])
    answer = chat("Hello", max_tokens=NEW_TOKENS, stop=stop)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < NEW_TOKENS
