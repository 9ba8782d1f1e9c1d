"""What requests call a model."""

from pathlib import Path

# Before the name of a model whose config.json is shipped.
BUILTIN = "builtin:"


def served_name(path: str, name: str = "") -> str:
    """What its entry of a config says, else its directory's name."""
    return name or Path(path.removeprefix(BUILTIN)).name or "model"
