"""Faults planted in the dispatch of one layer, in shared attention, or in the sampler, to show that
the exactness tests see them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from attention_faults import FAULTS
from moe_comm.dispatcher import Dispatcher, ExpertRows, Handle, PendingCombine, PendingDispatch
from moe_comm.routing import RoutingTable
from moe_comm.terms import Terms
from moe_comm.wire import CrossingRows
from moe_placement.plan import LayerPlan

from moe_serve.llm import LLM
from moe_serve.step.sampler import Sampler
from moe_serve.types import StepOutput


def plant(
    llm: LLM, kind: str, layer: int = -1, rank: int | None = None, times: int = 10**9
) -> None:
    """
    Args:
        kind: lost_row, missing_term, wrong_table, even_weights (which is no fault); lost_sum or
            coarse_wire, which strike all layers of a rank that a link joins to others; one of
            attention_faults.FAULTS, or draws_by_row, which have no layer to choose.
        rank: where; None is everywhere.
        times: lose so many rows or terms, then work well.
    """
    if rank not in (None, llm._meeting.launch.rank):
        return
    runner: Any = llm._rank.engine._runner
    timed = runner._dispatcher
    if kind == "draws_by_row":
        llm._rank.engine._sampler = RowKeyedSampler(llm._rank.engine._sampler)
    elif kind in LINKS:
        timed._inner._links = LINKS[kind](timed._inner._links)
    elif kind in FAULTS:
        runner._model = FAULTS[kind](runner._model)
    elif kind in TABLES:
        plan = llm._rank.deployment.plan
        placed = TABLES[kind](plan.layers[layer])
        table = RoutingTable(layer, placed.slots, placed.weights, plan.num_experts)
        timed._inner._tables = {**timed._inner._tables, layer: table}
    else:
        runner._dispatcher = LossyDispatcher(timed, kind, layer, times)


def turned(placed: LayerPlan) -> LayerPlan:
    """Each rank's experts one slot further than they are: rows go to their neighbours."""
    return replace(
        placed,
        slots=tuple(slots[1:] + slots[:1] for slots in placed.slots),
        weights=tuple(weights[1:] + weights[:1] for weights in placed.weights),
    )


def even(placed: LayerPlan) -> LayerPlan:
    """Every replica with the same weight."""
    everywhere = [expert for slots in placed.slots for expert in slots]

    def shares(slots: Sequence[int]) -> tuple[float, ...]:
        return tuple(1 / everywhere.count(expert) for expert in slots)

    return replace(placed, weights=tuple(map(shares, placed.slots)))


TABLES = {"wrong_table": turned, "even_weights": even}


class RowKeyedSampler(Sampler):
    """Draws with the batch row for a seed."""

    def __init__(self, inner: Sampler) -> None:
        self.__dict__ = inner.__dict__

    def sample(self, request_ids: Sequence[str], logits_SV: torch.Tensor) -> StepOutput:
        for row, request_id in enumerate(request_ids):
            self._states[request_id].seed = row
        return super().sample(request_ids, logits_SV)


class LossyLinks:
    """Loses the first sum of each layer that goes back to another pool."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start_back(self, sums_AD: torch.Tensor, *counts: Any) -> Any:
        sums_AD[:1] = 0
        return self.inner.start_back(sums_AD, *counts)


class CoarseLinks(LossyLinks):
    """Sends as much of a token's values as four bits hold."""

    def start(self, tokens: CrossingRows, counts: Sequence[int]) -> Any:
        scale_C1 = tokens.x_CD.abs().amax(1, keepdim=True).clamp_(min=1e-9) / 7
        coarse_CD = (tokens.x_CD / scale_C1).round_() * scale_C1
        return self.inner.start(replace(tokens, x_CD=coarse_CD), counts)

    def start_back(self, *arguments: Any) -> Any:
        return self.inner.start_back(*arguments)


LINKS = {"lost_sum": LossyLinks, "coarse_wire": CoarseLinks}


class LossyDispatcher:
    """Loses a received row on its way in, or a term of a token of this rank, in one layer."""

    def __init__(self, inner: Dispatcher, kind: str, layer: int, times: int) -> None:
        assert kind in ("lost_row", "missing_term"), kind
        self.inner = inner
        self.kind = kind
        self.faulty_layer = layer
        self.times = times
        self.layer = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, layer: int, *tensors: torch.Tensor) -> "LossyDispatch":
        self.layer = layer
        return LossyDispatch(self, self.inner.start(layer, *tensors))

    def start_combine(self, y_RD: torch.Tensor, handle: Any) -> PendingCombine:
        if self.kind == "missing_term":
            terms = handle if isinstance(handle, Terms) else handle.terms
            if terms.lengths[-1] and self.strikes("missing_term"):
                terms.weights_S1[-terms.lengths[-1]] = 0
        return self.inner.start_combine(y_RD, handle)

    def strikes(self, kind: str) -> bool:
        if self.kind != kind or self.layer != self.faulty_layer or not self.times:
            return False
        self.times -= 1
        return True


class LossyDispatch:
    def __init__(self, owner: LossyDispatcher, inner: PendingDispatch) -> None:
        self.owner = owner
        self.inner = inner

    def poll(self) -> None:
        self.inner.poll()

    def finish(self) -> tuple[ExpertRows, Handle]:
        rows, handle = self.inner.finish()
        if rows.rows_RD.shape[0] and self.owner.strikes("lost_row"):
            rows.rows_RD[0] = 0
        return rows, handle
