"""What a simulation tells, as tables and as plain values for JSON."""

from dataclasses import asdict
from typing import Any

from moe_placement.memory.report import format_bytes
from moe_placement.report.figures import rate, seconds
from moe_placement.report.table import Table
from moe_placement.serving.workload import Objective, Prediction
from moe_placement.simulator.result import SimulationResult

_TIMES = (
    ("TTFT", "ttft"),
    ("TPOT", "tpot"),
    ("between tokens", "inter_token"),
    ("end to end", "end_to_end"),
)


def counts(result: SimulationResult, objective: Objective) -> tuple[tuple[str, str], ...]:
    """Label and text of what matters most."""
    lost = f"{result.num_refused} refused, {result.num_unfinished} unfinished"
    return (
        ("requests", f"{result.num_requests}: {result.num_finished} finished, {lost}"),
        ("simulated time", f"{result.seconds:,.1f} s in {result.num_steps:,} steps"),
        ("requests a second", rate(result.request_rate)),
        ("output tokens a second", rate(result.throughput)),
        (
            "goodput",
            f"{rate(result.goodput(objective))} requests a second within the levels asked for "
            f"({result.attainment(objective):.1%} of all)",
        ),
        ("prefix cache", f"{result.prefix_hit_rate:.1%} of prompt tokens found"),
        ("preemptions", str(result.num_preemptions)),
        ("sent again", f"{result.num_resubmitted} requests, after failures"),
    )


def times_table(result: SimulationResult, predicted: Prediction | None) -> Table:
    """Percentiles; with the solver's median beside them where there is one."""
    rows = []
    for title, name in _TIMES:
        found = getattr(result, name)
        figures = (found.mean, found.p50, found.p90, found.p95, found.p99)
        rows.append((title, *map(seconds, figures)))
    header: tuple[str, ...] = ("", "mean", "p50", "p90", "p95", "p99")
    if predicted:
        medians = {"TTFT": seconds(predicted.ttft), "TPOT": seconds(predicted.tpot)}
        header = (*header, "p50 as solved")
        rows = [(*row, medians.get(row[0], "")) for row in rows]
    return Table("Times", header, tuple(rows))


def traffic_table(result: SimulationResult) -> Table:
    """How busy each pool's workers were, and what each link carried."""
    busy = [(name, f"{share:.1%} busy") for name, share in result.utilisation.items()]
    sent = [(name, format_bytes(int(size))) for name, size in result.link_bytes.items()]
    return Table("Pools and links", ("pool or link", "use"), (*busy, *sent))


def simulation_values(
    result: SimulationResult, objective: Objective, predicted: Prediction | None
) -> dict[str, Any]:
    """One object; seconds, bytes, tokens and requests a second."""
    plain = (
        *("num_requests", "num_finished", "num_refused", "num_unfinished", "num_resubmitted"),
        *("seconds", "request_rate", "throughput", "num_steps", "num_preemptions"),
        *("num_prompt_tokens", "num_cached_tokens"),
    )
    return {
        **{name: getattr(result, name) for name in plain},
        **{name: asdict(getattr(result, name)) for _, name in _TIMES},
        "goodput": result.goodput(objective),
        "attainment": result.attainment(objective),
        "utilisation": dict(result.utilisation),
        "link_bytes": dict(result.link_bytes),
        "predicted": asdict(predicted) if predicted else None,
    }
