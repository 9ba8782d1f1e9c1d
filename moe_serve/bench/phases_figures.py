"""What the phases benchmark found, as rows: apart beside together, each with what was predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moe_placement.simulator.distribution import distribution_of

from moe_serve.bench.phases_client import Answer
from moe_serve.bench.phases_predicted import KindTimes, SimulatedPhases
from moe_serve.control.planning.service import ServicePrediction


@dataclass(frozen=True, slots=True)
class _What:
    requests: str
    figure: str


@dataclass(frozen=True, slots=True)
class _Figure:
    """Seconds; None where nothing is said of it."""

    measured: float
    simulated: float | None
    formula: float | None


@dataclass(frozen=True, slots=True)
class PhasesRun:
    """One deployment, as it ran and as it was predicted.

    Attributes:
        counted: by the ranks: handovers, failed ones, bytes of keys and values, and the share of
            the declared segments that overran.
    """

    answers: Sequence[Answer]
    counted: Mapping[str, float]
    formula: ServicePrediction
    simulated: SimulatedPhases

    def figures(self, kinds: Sequence[str]) -> "dict[_What, _Figure]":
        found: dict[_What, _Figure] = {}
        for kind in kinds:
            of_kind = [answer for answer in self.answers if answer.kind == kind]
            simulated = _simulated(self.simulated.kinds[kind])
            found |= _figures(kind, _measured(of_kind), simulated, {})
        gaps = {"gap p50": self.simulated.gaps.p50, "gap p99": self.simulated.gaps.p99}
        simulated = _simulated(self.simulated.whole) | gaps
        formula = {
            "TTFT p50": self.formula.ttft,
            "TPOT p50": self.formula.tpot,
            "gap p99": self.formula.gap_p99,
        }
        return found | _figures("all", _measured(self.answers), simulated, formula)


def figure_rows(runs: Mapping[str, PhasesRun], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each figure of each kind of requests, and of all; milliseconds."""
    title = f"prefill and decode together and apart, emulated; {_count(runs['apart'])}"
    overruns = max(run.counted["overruns"] for run in runs.values())
    figures = {name: run.figures(kinds) for name, run in runs.items()}
    return [
        {"of": title, **asdict(what), **_beside(figures, what), "overruns": overruns}
        for what in next(iter(figures.values()))
    ]


def _figures(
    requests: str,
    measured: Mapping[str, float],
    simulated: Mapping[str, float],
    formula: Mapping[str, float],
) -> dict[_What, _Figure]:
    return {
        _What(requests, name): _Figure(seconds, simulated.get(name), formula.get(name))
        for name, seconds in measured.items()
    }


def _beside(figures: Mapping[str, Mapping[_What, _Figure]], what: _What) -> dict[str, Any]:
    """A figure of each deployment, in milliseconds."""
    row: dict[str, Any] = {}
    for name, found in figures.items():
        figure = found[what]
        row[f"{name} ms"] = figure.measured * 1e3
        row[f"{name} simulated ms"] = _milliseconds(figure.simulated)
        row[f"{name} formula ms"] = _milliseconds(figure.formula)
    return row


def _milliseconds(seconds: float | None) -> float | str:
    return "" if seconds is None else seconds * 1e3


def _simulated(times: KindTimes) -> dict[str, float]:
    return {
        "TTFT p50": times.ttft.p50,
        "TTFT p99": times.ttft.p99,
        "TPOT p50": times.tpot.p50,
    }


def _measured(answers: Sequence[Answer]) -> dict[str, float]:
    ttft = distribution_of([answer.ttft for answer in answers])
    tpot = distribution_of([answer.tpot for answer in answers])
    gaps = distribution_of([gap for answer in answers for gap in answer.gaps])
    return {
        "TTFT p50": ttft.p50,
        "TTFT p99": ttft.p99,
        "TPOT p50": tpot.p50,
        "gap p50": gaps.p50,
        "gap p99": gaps.p99,
    }


def _count(apart: PhasesRun) -> str:
    counted = apart.counted
    return (
        f"{len(apart.answers)} requests, {counted['handovers']:.0f} prompts handed over, "
        f"{counted['failed']:.0f} that failed, {counted['kv_bytes'] / 1e6:.1f} MB sent"
    )
