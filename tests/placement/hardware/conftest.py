"""Device and cluster files of a test's own."""

from pathlib import Path

import pytest
from hardware_files import ONE_DEVICE, WriteFile


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """Writes text to a file of the test's folder; its path."""

    def write(text: str = ONE_DEVICE, name: str = "bench.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
