"""What a device did in one segment of a step, in plain numbers, and how long that should take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWork:
    """All that a rank's own tokens need but routed experts, in some neighbouring layers.

    Attributes:
        first_layer: of the model's layers.
        end_layer: the first one that is not covered; None covers the rest, output head included.
        num_prompt_tokens: prompt tokens of this step.
        prompt_context: tokens attended to, added up over them.
        num_decoding: sequences that decode one token in this step.
        decode_context: tokens attended to, added up over them.
    """

    segment: ClassVar[str] = "attention"

    first_layer: int
    end_layer: int | None
    num_prompt_tokens: int = 0
    prompt_context: int = 0
    num_decoding: int = 0
    decode_context: int = 0


@dataclass(frozen=True, slots=True)
class ExpertsWork:
    """One layer's routed experts on this rank.

    Attributes:
        rows_by_slot: rows of each expert that the rank holds; empty where it holds none.
    """

    segment: ClassVar[str] = "experts"

    rows_by_slot: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return sum(self.rows_by_slot)

    @property
    def num_active(self) -> int:
        """Experts with rows, whose weights must be read."""
        return sum(rows > 0 for rows in self.rows_by_slot)


@dataclass(frozen=True, slots=True)
class LinkWork:
    """What a rank sends to other pools in one exchange.

    Attributes:
        bytes_by_link: `from>to` by the pools' names; without links over which nothing goes.
    """

    segment: ClassVar[str] = "link"

    bytes_by_link: Mapping[str, int]


Work: TypeAlias = AttentionWork | ExpertsWork | LinkWork

Pace: TypeAlias = Callable[[Work], float]
"""Seconds that a segment's work should take; 0 where nothing is said of it."""
