"""A checkpoint's tokenizer.json, found and tried in milliseconds, without transformers."""

from pathlib import Path

from tokenizers import Tokenizer

from moe_serve.errors import CheckpointError


def tokenizer_file(path: Path) -> Path:
    """The `tokenizer.json` in a checkpoint directory.

    Raises:
        CheckpointError: there is none.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{path} has no tokenizer.json; save one there with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return file


def check_tokenizer(path: Path) -> None:
    """Refuse a checkpoint directory whose `tokenizer.json` is missing or cannot be read.

    Raises:
        CheckpointError: says why.
    """
    file = tokenizer_file(path)
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:
        # The library raises bare Exception for a file it cannot read.
        raise CheckpointError(f"cannot read the tokenizer in {path}: {error}") from error
