"""Parts of the measured rows to fit on and to test on: by configuration, or a system left out."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from moe_placement.accuracy.rows import Row

# What changes with the load alone, and what only tells where and when a row was measured. The
# engine's version is among them: the same deployment measured again is no new configuration.
_NOT_CONFIGURATION = frozenset(
    {
        *("line", "id", "silicon_data_source", "backend_version", "concurrency", "batch_size"),
        *("prefill_batch_size", "decode_batch_size", "measured_ttft", "measured_tpot"),
    }
)
_CONFIGURATION = tuple(field.name for field in fields(Row) if field.name not in _NOT_CONFIGURATION)


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows to fit on and rows, none of their configurations among the former, to test on."""

    name: str
    train: tuple[Row, ...]
    test: tuple[Row, ...]


def configuration_of(row: Row) -> tuple[str, ...]:
    """What was run, whatever its load: rows that share this differ in concurrency alone."""
    return tuple(str(getattr(row, name)) for name in _CONFIGURATION)


def configuration_folds(rows: Sequence[Row], *, num_folds: int = 5, seed: int = 0) -> list[Fold]:
    """K folds over configurations: each row is tested once, and its configuration whole.

    Configurations are shuffled, and each goes to the fold with the fewest rows of its mode.

    Raises:
        ValueError: there are fewer configurations than folds.
    """
    groups: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[configuration_of(row)].append(index)
    if len(groups) < num_folds:
        raise ValueError(
            f"{len(groups)} configurations cannot make {num_folds} folds; give more rows"
        )
    fold_of: dict[int, int] = {}
    filled: Counter[tuple[str, int]] = Counter()
    keys = sorted(groups)
    for number in np.random.default_rng(seed).permutation(len(keys)):
        members = groups[keys[number]]
        mode = rows[members[0]].mode
        fold = min(range(num_folds), key=lambda fold: (filled[mode, fold], fold))
        filled[mode, fold] += len(members)
        fold_of.update(dict.fromkeys(members, fold))
    return [
        _fold(f"fold {fold + 1}", rows, [fold_of[index] == fold for index in range(len(rows))])
        for fold in range(num_folds)
    ]


def system_folds(rows: Sequence[Row]) -> list[Fold]:
    """One fold for each system: fit on all others, test on it.

    Raises:
        ValueError: all rows are of one system.
    """
    systems = sorted({row.system for row in rows})
    if len(systems) < 2:
        raise ValueError(f"all rows are of {systems[0]}; leaving a system out needs two")
    return [_fold(system, rows, [row.system == system for row in rows]) for system in systems]


def _fold(name: str, rows: Sequence[Row], is_test: Sequence[bool]) -> Fold:
    pairs = list(zip(rows, is_test, strict=True))
    return Fold(
        name,
        train=tuple(row for row, tested in pairs if not tested),
        test=tuple(row for row, tested in pairs if tested),
    )
