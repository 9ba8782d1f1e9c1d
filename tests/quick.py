"""Which cases of a parametrised test are quick; the others are left to the long run."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

# One of each kind of attention: the other families share their code.
QUICK_FAMILIES = ("deepseek_v3", "qwen3_moe")


def quick_among(every: Iterable[Any], quick: Collection[Any] = QUICK_FAMILIES) -> list[Any]:
    """Parameters of every case, marked slow unless among the quick ones; tuples are spread."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quick else pytest.mark.slow,
        )
        for case in every
    ]
