"""What changes when one plan replaces another: the weights that must be loaded or dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moe_placement.plan import Plan, PlanError


@dataclass(frozen=True, slots=True)
class Move:
    """One replica that appears on, or leaves, a rank."""

    layer: int
    expert: int
    rank: int
    kind: Literal["add", "remove"]


def diff(old: Plan, new: Plan) -> tuple[Move, ...]:
    """The moves that turn the old plan's slots into the new one's.

    A replica whose slot or routing weight alone changes does not move.

    Returns:
        by layer, then rank, removals before additions (their room is wanted), then expert.

    Raises:
        PlanError: the plans are of different models.
    """
    if (old.model, old.num_experts) != (new.model, new.num_experts):
        raise PlanError(
            f"cannot move from a plan of {old.model!r} with {old.num_experts} experts to one of "
            f"{new.model!r} with {new.num_experts}"
        )
    return tuple(_moves(old, new))


def _moves(old: Plan, new: Plan) -> Iterator[Move]:
    for layer in sorted(old.layers.keys() | new.layers.keys()):
        for rank in range(max(old.num_ranks, new.num_ranks)):
            before, after = _held(old, layer, rank), _held(new, layer, rank)
            yield from (Move(layer, expert, rank, "remove") for expert in sorted(before - after))
            yield from (Move(layer, expert, rank, "add") for expert in sorted(after - before))


def _held(plan: Plan, layer: int, rank: int) -> frozenset[int]:
    if layer not in plan.layers or rank >= plan.num_ranks:
        return frozenset()
    return frozenset(plan.experts_of(layer, rank))
