"""What the markets of a question propose, best first: spread over failure domains where asked."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from moe_placement.solver.constraints import InfeasibleError
from moe_placement.solver.pools.plan_builder import workers_are_spread
from moe_placement.solver.pools.question import Market, Question, open_market
from moe_placement.solver.pools.rank_layout import lay_out
from moe_placement.solver.pools.shortage import spread_shortage
from moe_placement.solver.workers.candidates import Progress
from moe_placement.solver.workers.worker import Deployment

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, eq=False)
class Proposal(Generic[Found]):
    """Attributes:
    order: proposals are compared by it; the least is the best.
    found: what else the search wants to know of it.
    """

    market: Market
    deployment: Deployment
    order: tuple[float, ...]
    found: Found


Search = Callable[[Market], Iterable[Proposal[Found]]]
# A deployment on the cluster that it is for, with the market there.
HandOut = Callable[[Market, Deployment], tuple[Market, Deployment]]


def find_proposals(
    question: Question,
    search: Search[Found],
    *,
    hand_out: HandOut = Market.handed_out,
    progress: Progress | None = None,
) -> list[Proposal[Found]]:
    """Search the market of all workers; at least one proposal.

    Where replicas must be spread and the best proposal does not have two workers in separate
    domains for each phase, workers with room for two copies of all experts are searched too, and
    then those alone of which no domain holds too much: they are spread by themselves.

    Raises:
        InfeasibleError: none fits, serves within the objective, or can be spread.
    """
    proposals = _ranked(search(open_market(question, progress=progress)))
    if not question.constraints.spread or _is_spread(proposals[0], hand_out):
        return proposals
    kept = [one for one in proposals if _is_spread(one, hand_out)]
    refused: InfeasibleError | None = None
    for paired in (False, True):
        try:
            market = open_market(question, copies=2, paired=paired, progress=progress)
            proposals = _ranked(search(market))
        except InfeasibleError as error:
            refused = refused or error
            continue
        kept += proposals if paired else [one for one in proposals if _is_spread(one, hand_out)]
    if not kept:
        raise refused or spread_shortage(question.context)
    return _ranked(kept)


def _ranked(proposals: Iterable[Proposal[Found]]) -> list[Proposal[Found]]:
    return sorted(proposals, key=lambda one: one.order)


def _is_spread(proposal: Proposal[Found], hand_out: HandOut) -> bool:
    market, deployment = hand_out(proposal.market, proposal.deployment)
    context = market.question.context
    layout = lay_out(context.cluster, deployment, spread=True)
    return not context.spec.num_experts or workers_are_spread(context, layout)
