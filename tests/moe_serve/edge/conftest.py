"""Small tokenizers of every kind of decoder."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from moe_serve.edge.tokenizer import ModelTokenizer

TEXT = [
    "The router scores every expert; only the best are asked, so most of the weights rest.",
    "Seventeen small ships sailed past the harbour before dawn, carrying salt and wool.",
    "user assistant system hello hello world think answer stop END",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
    "{% if messages[0].content == 'refuse me' %}{{ raise_exception('no such talk') }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENED = TEMPLATE + "{% if add_generation_prompt and not closed %}<think>\n{% endif %}"


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, template: str | None, path: Path) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(str(path))
    return path


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level, knows no thinking tag."""
    return save(byte_level_tokenizer(), TEMPLATE, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def thinking_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tags are tokens; the model itself opens them."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    return save(tokenizer, TEMPLATE, tmp_path_factory.mktemp("thinking"))


@pytest.fixture(scope="session")
def opened_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template opens the tag, unless told `closed`."""
    return save(byte_level_tokenizer(), OPENED, tmp_path_factory.mktemp("opened"))


@pytest.fixture(scope="session")
def untemplated_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the manner of Llama 2 and Mixtral: words with U+2581, bytes as `<0x..>`; no template."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", *SPECIAL[1:]], show_progress=False
    )
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in TEXT], trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    path = tmp_path_factory.mktemp("untemplated")
    return save(Tokenizer.from_str(json.dumps(state)), None, path)


@pytest.fixture(scope="session")
def word_piece_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the manner of BERT: a decoder that no byte table can stand for."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", *SPECIAL], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return save(tokenizer, None, tmp_path_factory.mktemp("word_piece"))


@pytest.fixture(scope="session")
def plain_tokenizer(plain_path: Path) -> ModelTokenizer:
    return ModelTokenizer(plain_path)


@pytest.fixture(scope="session")
def word_piece_tokenizer(word_piece_path: Path) -> ModelTokenizer:
    return ModelTokenizer(word_piece_path)


@pytest.fixture(scope="session")
def untemplated_tokenizer(untemplated_path: Path) -> ModelTokenizer:
    return ModelTokenizer(untemplated_path)
