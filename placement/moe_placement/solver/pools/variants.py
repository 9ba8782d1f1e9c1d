"""The same way to plan with one choice undone: another format, another attention degree."""

from collections.abc import Callable, Iterator

from moe_placement.solver.pools.counts import Offer
from moe_placement.solver.pools.question import Market
from moe_placement.solver.pools.reasons import loses_because
from moe_placement.solver.pools.search import PlanClass, best_of_class
from moe_placement.solver.solution import Choice
from moe_placement.solver.workers.worker import Deployment, Part

# Groups up to which each is asked about; with more, reasons would be a book.
_FEW_GROUPS = 4


def variants(market: Market, best: Deployment) -> list[tuple[Choice, Deployment | None]]:
    """For each group its weight format and attention degree, and the best plan without it."""
    found = list(_used(best))
    if len(dict.fromkeys(part.group for part in found)) > _FEW_GROUPS:
        return []
    choices: dict[tuple[str, str], tuple[Choice, Deployment | None]] = {}
    for part in found:
        name = market.question.context.cluster.groups[part.group].name
        form, degree = part.weight_format, part.tensor_parallel
        subject = f"weights of {name}"
        choices[(subject, form)] = _undone(market, best, subject, form, _other_format(part))
        if not part.experts_only:
            subject = f"attention of {name}"
            chosen = f"tensor_parallel {degree}"
            choices[(subject, chosen)] = _undone(market, best, subject, chosen, _other_degree(part))
    return list(choices.values())


def _used(best: Deployment) -> Iterator[Part]:
    for workers in best.workers:
        yield from workers.kind.parts


def _other_format(part: Part) -> Callable[[Part], bool]:
    return lambda other: (other.group, other.weight_format) != (part.group, part.weight_format)


def _other_degree(part: Part) -> Callable[[Part], bool]:
    return lambda other: (other.group, other.tensor_parallel) != (part.group, part.tensor_parallel)


def _undone(
    market: Market,
    best: Deployment,
    subject: str,
    chosen: str,
    allows: Callable[[Part], bool],
) -> tuple[Choice, Deployment | None]:
    def is_allowed(offer: Offer) -> bool:
        return all(allows(part) for part in offer.kind.parts)

    plan_class = PlanClass("", apart=best.is_apart, mixed=best.is_mixed)
    offers = [offer for offer in market.placed_offers() if is_allowed(offer)]
    rival = best_of_class(plan_class, offers, market.question.group_sizes, market.rates)
    if rival is None:
        reason = "nothing else that was allowed fits and serves"
    else:
        reason = f"without it {loses_because(rival, best, market.rates)}"
    return Choice(subject=subject, chosen=chosen, reason=reason), rival
