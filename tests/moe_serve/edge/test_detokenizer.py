"""Streamed text is the decoded whole, and never a part of a character."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.errors import CheckpointError, RequestError

REPLACEMENT = "\ufffd"
FAMILY = "👨‍👩‍👧‍👦"
SPECIAL = re.compile(r"<\|(endoftext|im_start|im_end)\|>")
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text("她说 hello🙂🚢é\u200d👩")
NAMES = st.sampled_from(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "|>"])


def pieces(tokenizer: ModelTokenizer, token_ids: Sequence[int]) -> list[str]:
    detokenizer = tokenizer.detokenizer()
    return [*map(detokenizer.add, token_ids), detokenizer.finish()]


def encode(tokenizer: ModelTokenizer, text: str) -> tuple[int, ...]:
    return asyncio.run(tokenizer.encode(text, add_special_tokens=False))


@given(TEXTS.filter(lambda text: not SPECIAL.search(text)))
def test_any_text_comes_back_in_whole_characters(
    plain_tokenizer: ModelTokenizer, text: str
) -> None:
    parts = pieces(plain_tokenizer, encode(plain_tokenizer, text))
    assert "".join(parts) == text
    assert sum(part.count(REPLACEMENT) for part in parts) == text.count(REPLACEMENT)


@given(st.lists(TEXTS | NAMES).map("".join))
def test_names_of_special_tokens_are_all_that_does_not_come_back(
    plain_tokenizer: ModelTokenizer, text: str
) -> None:
    parts = pieces(plain_tokenizer, encode(plain_tokenizer, text))
    assert "".join(parts) == SPECIAL.sub("", text)


@given(st.lists(st.integers(min_value=3, max_value=419)))
def test_any_ids_give_what_decoding_them_at_once_gives(
    plain_tokenizer: ModelTokenizer, plain_path: Path, ids: list[int]
) -> None:
    whole = Tokenizer.from_file(str(plain_path / "tokenizer.json")).decode(ids)
    assert "".join(pieces(plain_tokenizer, ids)) == whole


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\0")).filter(
        lambda text: "<unk>" not in text and not SPECIAL.search(text)
    )
)
def test_byte_fallback_text_comes_back(untemplated_tokenizer: ModelTokenizer, text: str) -> None:
    ids = encode(untemplated_tokenizer, text)
    assert "".join(pieces(untemplated_tokenizer, ids)) == untemplated_tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from(["the", "ships", "sailed", "rest", "dawn", "wool", "system"])))
def test_other_decoders_come_back(word_piece_tokenizer: ModelTokenizer, words: list[str]) -> None:
    text = " ".join(words)
    ids = encode(word_piece_tokenizer, text)
    assert "".join(pieces(word_piece_tokenizer, ids)) == text


def test_a_wrong_byte_token_spares_the_characters_before_it(
    untemplated_tokenizer: ModelTokenizer,
) -> None:
    right = encode(untemplated_tokenizer, "好")
    cut = encode(untemplated_tokenizer, "好")[-1:]
    assert "".join(pieces(untemplated_tokenizer, [*right, *cut, *cut])) == "好" + 2 * REPLACEMENT


@pytest.mark.parametrize("name", ["plain_tokenizer", "untemplated_tokenizer"])
def test_each_code_point_comes_as_soon_as_it_is_whole(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    ids = encode(tokenizer, f"说{FAMILY}")
    shown = [part for part in pieces(tokenizer, ids) if part.strip()]
    assert shown == ["说", *FAMILY]
    assert len(ids) > len(shown)


def test_unfinished_character_is_shown_only_at_the_end(plain_tokenizer: ModelTokenizer) -> None:
    ids = encode(plain_tokenizer, "好")[:-1]
    assert pieces(plain_tokenizer, ids) == [""] * len(ids) + [REPLACEMENT]


def test_special_tokens_and_ids_without_a_token_have_no_text(
    plain_tokenizer: ModelTokenizer,
) -> None:
    hello = encode(plain_tokenizer, "hello")
    assert "".join(pieces(plain_tokenizer, [1, *hello, 100_000, 2])) == "hello"


def test_thinking_tags_have_text_even_where_they_are_special(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_tiny())
    tokenizer.add_special_tokens(["<think>", "</think>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(str(tmp_path))
    thinking = ModelTokenizer(tmp_path)
    assert thinking.thinks
    assert "".join(pieces(thinking, encode(thinking, "<think>a</think>"))) == "<think>a</think>"


def test_token_bytes_join_to_the_text(
    plain_tokenizer: ModelTokenizer, untemplated_tokenizer: ModelTokenizer
) -> None:
    text = "hello 她🙂 world"
    for tokenizer, front in ((plain_tokenizer, ""), (untemplated_tokenizer, " ")):
        assert tokenizer.token_bytes.join(encode(tokenizer, text)).decode() == front + text


def test_no_tokenizer_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json; save one"):
        ModelTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        ModelTokenizer(tmp_path)


def test_template_errors_are_the_requests(
    plain_tokenizer: ModelTokenizer, untemplated_tokenizer: ModelTokenizer
) -> None:
    message = {"role": "user", "content": "refuse me"}
    with pytest.raises(RequestError, match="no such talk"):
        plain_tokenizer.chat_prompt([message])
    with pytest.raises(RequestError, match="tokenize cannot be set"):
        plain_tokenizer.chat_prompt([message], {"tokenize": True})
    with pytest.raises(RequestError, match="no chat template"):
        untemplated_tokenizer.chat_prompt([message])


def _tiny() -> str:
    from tokenizers import decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())
