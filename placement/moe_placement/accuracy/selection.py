"""Which measured rows a prediction can be made for, and why the others have none."""

from collections.abc import Iterable
from dataclasses import dataclass

from moe_placement.accuracy.deployment import deployment
from moe_placement.accuracy.rows import Row, UnpredictableError


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows that a prediction can be made for, and those it cannot, with the reason."""

    predictable: tuple[Row, ...]
    unpredictable: tuple[tuple[Row, str], ...]

    @property
    def num_rows(self) -> int:
        return len(self.predictable) + len(self.unpredictable)

    def reasons(self) -> dict[tuple[str, str], int]:
        """How many rows cannot be predicted, by mode and reason, the most frequent first."""
        counts: dict[tuple[str, str], int] = {}
        for row, reason in self.unpredictable:
            counts[row.mode, reason] = counts.get((row.mode, reason), 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def select(rows: Iterable[Row]) -> Selection:
    """Read each row as a prediction does: its model and system must be known, and it complete."""
    predictable: list[Row] = []
    unpredictable: list[tuple[Row, str]] = []
    for row in rows:
        try:
            deployment(row)
        except UnpredictableError as error:
            unpredictable.append((row, str(error)))
        else:
            predictable.append(row)
    return Selection(tuple(predictable), tuple(unpredictable))
