"""Log-probabilities: both shapes, and entries that end where the text does."""

import asyncio

from moe_serve.edge.choice import Choice, Delta
from moe_serve.edge.logprobs import (
    TokenLogprob,
    chat_logprobs,
    completion_logprobs,
    token_text,
)
from moe_serve.edge.stop import StopMatcher
from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.types import TokenEvent


def encode(tokenizer: ModelTokenizer, text: str) -> tuple[int, ...]:
    return asyncio.run(tokenizer.encode(text, add_special_tokens=False))


def run(tokenizer: ModelTokenizer, ids: tuple[int, ...], stops: list[str], end: str) -> list[Delta]:
    choice = Choice(0, tokenizer.detokenizer(), StopMatcher(stops))
    deltas = []
    for index, token_id in enumerate(ids):
        reason = end if index == len(ids) - 1 else None
        event = TokenEvent("r", index, token_id, logprob=-0.5, finish_reason=reason)  # type: ignore[arg-type]
        deltas.append(choice.add(event))
        if choice.finish_reason is not None:
            break
    return deltas


def shown(tokenizer: ModelTokenizer, deltas: list[Delta]) -> tuple[str, bytes]:
    entries = [entry for delta in deltas for entry in delta.logprobs]
    text = "".join(delta.content for delta in deltas)
    return text, tokenizer.token_bytes.join(entry.token_id for entry in entries)


def test_entries_cover_the_whole_text(plain_tokenizer: ModelTokenizer) -> None:
    text = "hello 她🙂 world"
    found, token_bytes = shown(
        plain_tokenizer, run(plain_tokenizer, encode(plain_tokenizer, text), [], "length")
    )
    assert found == text == token_bytes.decode()


def test_the_ending_token_has_neither_text_nor_entry(plain_tokenizer: ModelTokenizer) -> None:
    ids = (*encode(plain_tokenizer, "hello"), 2)
    assert shown(plain_tokenizer, run(plain_tokenizer, ids, [], "stop")) == ("hello", b"hello")


def test_entries_end_with_the_text_before_a_stop_string(plain_tokenizer: ModelTokenizer) -> None:
    ids = encode(plain_tokenizer, "hello END zz")
    deltas = run(plain_tokenizer, ids, [" END"], "length")
    assert shown(plain_tokenizer, deltas) == ("hello", b"hello")
    assert deltas[-1].finish_reason == "stop"
    assert len(deltas) < len(ids)


def test_entries_never_run_ahead_of_held_text(plain_tokenizer: ModelTokenizer) -> None:
    deltas = run(plain_tokenizer, encode(plain_tokenizer, "a她ENx"), ["ENDS"], "length")
    text, entries = "", b""
    for delta in deltas:
        text += delta.content
        entries += plain_tokenizer.token_bytes.join(e.token_id for e in delta.logprobs)
        assert entries.decode(errors="ignore").startswith(text)
    assert text == "a她ENx" == entries.decode()


def test_offsets_count_characters(plain_tokenizer: ModelTokenizer) -> None:
    ids = encode(plain_tokenizer, "她🙂z")
    deltas = run(plain_tokenizer, ids, [], "length")
    offsets = [entry.offset for delta in deltas for entry in delta.logprobs]
    assert offsets == [0] * 3 + [1] * 4 + [2]


def test_chat_shape(plain_tokenizer: ModelTokenizer) -> None:
    (a,), (b,) = encode(plain_tokenizer, "a"), encode(plain_tokenizer, "b")
    entry = TokenLogprob(a, -0.5, ((a, -0.5), (b, float("-inf"))), 0)
    found = chat_logprobs([entry], plain_tokenizer.token_bytes, 2)
    top = [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -9999.0, "bytes": [98]},
    ]
    assert found == {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    none = chat_logprobs([entry], plain_tokenizer.token_bytes, 0)
    assert none["content"][0]["top_logprobs"] == []


def test_completion_shape(plain_tokenizer: ModelTokenizer) -> None:
    (a,), (b,) = encode(plain_tokenizer, "a"), encode(plain_tokenizer, "b")
    part = encode(plain_tokenizer, "她")[0]
    entries = [TokenLogprob(a, -2.0, ((b, -0.5),), 0), TokenLogprob(part, -1.0, (), 1)]
    assert completion_logprobs(entries, plain_tokenizer.token_bytes, 1) == {
        "text_offset": [0, 1],
        "token_logprobs": [-2.0, -1.0],
        "tokens": ["a", "bytes:\\xe5"],
        "top_logprobs": [{"b": -0.5, "a": -2.0}, {"bytes:\\xe5": -1.0}],
    }


def test_special_tokens_have_their_names(plain_tokenizer: ModelTokenizer) -> None:
    assert token_text(plain_tokenizer.token_bytes[2]) == "<|im_end|>"
    assert plain_tokenizer.token_bytes[100_000] == b""
