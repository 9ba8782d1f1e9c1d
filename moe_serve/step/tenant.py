"""One served model as a rank of its EP group has it: the engine, its share, what it holds."""

from collections.abc import Callable
from dataclasses import dataclass

from moe_serve.messages import ALL_RANKS
from moe_serve.step.lane import Lane
from moe_serve.step.rank_engine import RankEngine
from moe_serve.types import ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One served model, here or on another rank.

    Attributes:
        name: of its model.
        rank: the only plan rank that it is on, or ALL_RANKS.
        share: of each of its ranks' time, from 0 to 1.
        is_hard: never more than that.
        engine: None where it is on another rank, or runs in a lane.
        lane: where it has a part of the device's processors to itself: it takes no turns.
        memory: bytes here, by part.
        resize: gives it so many bytes here, at most or at least, perhaps as it had them before ->
            what it serves then, None where that is as before; LedgerError where that cannot be.
        close: gives back what it holds here.
        takes_turns: not where it has processors to itself.
    """

    number: int
    name: str = ""
    rank: int = ALL_RANKS
    share: float = 1.0
    is_hard: bool = False
    engine: RankEngine | None = None
    lane: Lane | None = None
    memory: Callable[[], dict[str, int]] = dict
    resize: Callable[[int, bool, bool], ServedModel | None] = lambda *_: None
    close: Callable[[], None] = lambda: None
    takes_turns: bool = True
