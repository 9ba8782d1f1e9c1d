"""Prediction of measured rows: one at a time as floats, or all at once as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_placement.accuracy.deployment import Deployment, Worker, deployment
from moe_placement.accuracy.rows import Row
from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.price import step_parts, step_price
from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.terms import of_engine
from moe_placement.serving.loop import opening_burst, settle_loop
from moe_placement.serving.mixture import Seconds
from moe_placement.serving.tandem import prefill_station, settle_tandem

Floats = NDArray[np.float64]


def predict_row(row: Row, coefficients: Coefficients) -> tuple[float, float]:
    """Mean TTFT and TPOT of a row, in seconds.

    Raises:
        UnpredictableError: the row lacks what a prediction needs.
    """
    ttft, tpot = predict_deployment(deployment(row), coefficients)
    return float(ttft), float(tpot)


def predict_deployment(case: Deployment, coefficients: Coefficients) -> tuple[float, float]:
    """The same of a deployment, or of a stack of them: then both are arrays."""
    if case.prefill is None:
        return _together(case, coefficients)
    return _apart(case, case.prefill, coefficients)


def _together(case: Deployment, c: Coefficients) -> tuple[float, float]:
    seconds, limits, request = _timer(case.decode, c), case.decode.limits, case.request
    state = settle_loop(seconds, request, case.clients, limits)
    mixture = state.mixture
    poll = of_engine(case.decode.terms, c, "poll") * mixture.mean
    admission = (case.clients - state.admitted) / state.rate
    burst = opening_burst(seconds, request, state.admitted, limits)
    steady = c.request + poll + mixture.residual + mixture.service + state.waiting + admission
    ttft = steady + c.opening_share * (burst - state.waiting)
    return ttft, mixture.mean / request.tokens_per_step


def _apart(case: Deployment, prefill: Worker, c: Coefficients) -> tuple[float, float]:
    station = prefill_station(
        _timer(prefill, c),
        case.request,
        case.num_prefill,
        prefill.groups,
        prefill.limits.max_tokens_per_step / prefill.groups,
    )
    state = settle_tandem(
        station,
        _timer(case.decode, c),
        case.request,
        case.clients,
        num_decode=case.num_decode,
        limits=case.decode.limits,
        handover=0.0,
    )
    handover = c.handover_steps * state.step
    burst = station.slot * (case.clients + 1) / 2
    steady = c.request + station.service + state.waiting + state.queueing + handover
    ttft = steady + c.opening_apart * (burst - state.waiting)
    return ttft, state.step / case.request.tokens_per_step


def _timer(worker: Worker, coefficients: Coefficients) -> Seconds:
    price = step_price(worker.work, worker.terms, coefficients)

    def seconds(shape: StepShape) -> float:
        return sum(step_parts(price, shape).values())

    return seconds


@dataclass(frozen=True, slots=True, eq=False)
class RowStack:
    """Rows of one mode as arrays: a deployment whose every number is an array of one per row."""

    index: NDArray[np.int64]
    case: Deployment


def stack_rows(rows: Sequence[Row]) -> list[RowStack]:
    """Stack the rows of each mode, for predictions of all of them in one go."""
    stacks = []
    for mode in sorted({row.mode for row in rows}):
        index = [place for place, row in enumerate(rows) if row.mode == mode]
        cases = [deployment(rows[place]) for place in index]
        stacks.append(RowStack(np.array(index), _stack(cases)))
    return stacks


def predict_stacks(stacks: Sequence[RowStack], coefficients: Coefficients) -> tuple[Floats, Floats]:
    """TTFT and TPOT of all rows, in their order."""
    size = sum(len(stack.index) for stack in stacks)
    ttft, tpot = np.empty(size), np.empty(size)
    for stack in stacks:
        ttft[stack.index], tpot[stack.index] = predict_deployment(stack.case, coefficients)
    return ttft, tpot


def _stack(values: Sequence[Any]) -> Any:
    """One value whose numbers are arrays over those of `values`, dataclasses all the way down."""
    first = values[0]
    if first is None:
        return None
    if not is_dataclass(first):
        return np.array(values, dtype=np.float64)
    parts = {
        entry.name: _stack([getattr(value, entry.name) for value in values])
        for entry in fields(first)
    }
    return replace(first, **parts)  # type: ignore[type-var]
