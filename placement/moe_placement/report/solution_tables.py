"""A Solution as tables: alternatives, choices, experts, memory; the same in terminal and page."""

from collections.abc import Iterable, Sequence

from moe_placement.memory.rank_memory import RankMemory
from moe_placement.memory.report import format_bytes
from moe_placement.plan import Plan
from moe_placement.report.figures import money, rate, seconds
from moe_placement.report.table import Table
from moe_placement.solver.solution import Alternative, Solution

_MEMORY_PARTS = (
    ("experts", "experts"),
    ("attention", "attention"),
    ("other weights", "rest"),
    ("working space", "working_space"),
    ("KV cache", "kv"),
    ("total", "total"),
    ("may use", "budget"),
)


def summary(solution: Solution) -> tuple[tuple[str, str], ...]:
    """Label and text of what matters most."""
    best = solution.alternatives[0]
    prediction = solution.prediction
    return (
        ("plan", best.name),
        ("devices", str(best.num_devices)),
        ("cost an hour", money(best.cost_per_hour)),
        ("requests a second", rate(prediction.request_rate)),
        ("output tokens a second", rate(prediction.throughput)),
        ("TTFT", f"{seconds(prediction.ttft)} median, {seconds(prediction.ttft_tail)} tail"),
        ("TPOT", f"{seconds(prediction.tpot)} median, {seconds(prediction.tpot_tail)} tail"),
        (
            "full decode step",
            f"{seconds(solution.step_seconds)}; no placement on these pools is below "
            f"{seconds(solution.lower_bound)} (gap {solution.gap:.1%})",
        ),
        ("what binds", solution.binding),
    )


def alternatives_table(alternatives: Sequence[Alternative]) -> Table:
    """Best first, each with the reason it loses."""
    return Table(
        "Alternatives, the best first",
        (
            *("plan", "why not", "devices", "cost/h", "TTFT", "TTFT tail", "TPOT", "TPOT tail"),
            *("requests/s", "tokens/s per device"),
        ),
        tuple(_alternative(option, number) for number, option in enumerate(alternatives)),
        num_names=2,
    )


def _alternative(option: Alternative, number: int) -> tuple[str, ...]:
    found = option.prediction
    why = "chosen" if number == 0 else option.loses_because
    return (
        option.name,
        why,
        str(option.num_devices),
        money(option.cost_per_hour),
        *map(seconds, (found.ttft, found.ttft_tail, found.tpot, found.tpot_tail)),
        rate(found.request_rate),
        rate(found.throughput / option.num_devices),
    )


def choices_table(solution: Solution) -> Table:
    rows = tuple((choice.subject, choice.chosen, choice.reason) for choice in solution.choices)
    return Table("Choices", ("what", "chosen", "because"), rows, num_names=3)


def pools_table(plan: Plan) -> Table:
    """Pools with the experts that a rank holds of one layer."""
    return Table(
        "Pools",
        ("pool", "device", "role", "weights", "ranks", "tensor parallel", "experts/rank, layer"),
        tuple(
            (
                pool.name,
                pool.device,
                pool.role,
                pool.weight_format,
                str(len(pool.ranks)),
                str(pool.tensor_parallel),
                _range(
                    len(layer.slots[rank]) for layer in plan.layers.values() for rank in pool.ranks
                ),
            )
            for pool in plan.pools
        ),
        num_names=4,
    )


def memory_table(memories: Iterable[RankMemory]) -> Table:
    """The fullest rank of each pool."""
    fullest: dict[str, RankMemory] = {}
    for memory in memories:
        known = fullest.setdefault(memory.pool, memory)
        if _filled(memory) > _filled(known):
            fullest[memory.pool] = memory
    return Table(
        "Memory of the fullest rank of each pool",
        ("pool", *(title for title, _ in _MEMORY_PARTS), "KV tokens"),
        tuple(_memory(memory) for memory in fullest.values()),
    )


def _memory(memory: RankMemory) -> tuple[str, ...]:
    parts = {"rest": memory.other_weights - memory.attention}
    sizes = (parts.get(part, getattr(memory, part, 0)) for _, part in _MEMORY_PARTS)
    return (memory.pool, *map(format_bytes, sizes), f"{memory.num_tokens:,}")


def _filled(memory: RankMemory) -> int:
    return memory.weights + memory.working_space


def _range(counts: Iterable[int]) -> str:
    found = set(counts)
    if not found:
        return "none"
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"
