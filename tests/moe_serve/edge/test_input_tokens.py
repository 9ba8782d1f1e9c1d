"""Texts and pairs as an encoder's tokens, beside transformers' own tokenizer."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import rewrite_json
from encoder_checkpoints import TEXTS, make_pair_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from moe_serve.edge.input_tokens import EncoderInput, InputTokenizer
from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.errors import RequestError

# Read by transformers, which adds and cuts as the checkpoint's users expect.
OTHER = make_pair_tokenizer()
OURS = InputTokenizer(make_pair_tokenizer().backend_tokenizer, has_types=True, cuts_left=False)
WORDS = st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=30).map(" ".join)


def tokenize(
    inputs: Sequence[Any], most: int | None = None, tokenizer: InputTokenizer = OURS
) -> list[EncoderInput]:
    return asyncio.run(tokenizer.tokenize(inputs, most))


def expected(*texts: str, most: int | None = None, other: Any = OTHER) -> EncoderInput:
    options = {"truncation": most is not None, "max_length": most}
    # In lists: an empty text by itself would count as none.
    encoded = other(*([text] for text in texts), return_token_type_ids=True, **options)
    (types,), (ids,) = encoded["token_type_ids"], encoded["input_ids"]
    return EncoderInput(tuple(ids), types.index(1) if 1 in types else None)


def tokenizer_that_says(path: Path, **fields: Any) -> Path:
    make_pair_tokenizer().save_pretrained(path)
    rewrite_json(path / "tokenizer_config.json", lambda content: {**content, **fields})
    return path


@given(WORDS, WORDS, st.one_of(st.none(), st.integers(5, 40)))
def test_pairs_are_cut_as_transformers_cuts_them(first: str, second: str, most: int | None) -> None:
    assert tokenize([(first, second)], most) == [expected(first, second, most=most)]


@given(WORDS, st.one_of(st.none(), st.integers(3, 20)))
def test_texts_are_cut_as_transformers_cuts_them(text: str, most: int | None) -> None:
    assert tokenize([text], most) == [expected(text, most=most)]


def test_many_texts_are_tokenized_beside_the_loop() -> None:
    texts = [text for text in TEXTS for _ in range(40)]
    assert sum(map(len, texts)) > 4096
    assert tokenize(texts) == [expected(text) for text in texts]


def test_a_checkpoint_s_own_ways_are_kept(tmp_path: Path) -> None:
    tokenizer_that_says(tmp_path, truncation_side="left")
    ours = ModelTokenizer(tmp_path).inputs
    other = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    pair = (TEXTS[0], TEXTS[1])
    assert tokenize([pair], 12, ours) == [expected(*pair, most=12, other=other)]
    assert ours.cut([4, 5, 6], 2) == EncoderInput((5, 6))
    assert ours.cut([4, 5, 6], None) == ours.cut([4, 5, 6], 3) == EncoderInput((4, 5, 6))


def test_without_type_ids_there_is_no_second_start(tmp_path: Path) -> None:
    tokenizer_that_says(tmp_path, model_input_names=["input_ids", "attention_mask"])
    (pair,) = tokenize([("salt", "wool")], tokenizer=ModelTokenizer(tmp_path).inputs)
    assert pair.second_start is None
    assert pair.token_ids == tokenize([("salt", "wool")])[0].token_ids


def test_no_room_beside_the_special_tokens() -> None:
    with pytest.raises(RequestError, match="raise it to 5") as refusal:
        tokenize([("salt and wool", "wool")], 4)
    assert refusal.value.parameter == "truncate_prompt_tokens"
