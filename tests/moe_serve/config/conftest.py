"""A config file to change, and the one line that loading it must say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moe_serve.config.load import load_config
from moe_serve.errors import MoeServeError


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_text(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def refusal(write: Callable[[str], Path]) -> Callable[..., str]:
    """What load_config says of a file (and overrides) that it must refuse."""

    def refuse(text: str, *overrides: str) -> str:
        with pytest.raises(MoeServeError) as caught:
            load_config(write(text), overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse
