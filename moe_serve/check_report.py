"""The report of `--check`: tables on a terminal, plain columns elsewhere, or JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, TextIO

from moe_placement.memory.rank_memory import RankMemory
from moe_placement.memory.report import format_bytes
from moe_placement.plan import Plan
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment

_PARTS = (
    ("attention", "attention"),
    ("dense layers", "dense_mlp"),
    ("shared experts", "shared_experts"),
    ("embedding and head", "embedding_and_head"),
    ("gates and norms", "gates_and_norms"),
    ("rotary table", "rotary_table"),
    ("experts", "experts"),
    ("working space", "working_space"),
    ("experts on the move", "moving"),
    ("KV cache", "kv"),
    ("total", "total"),
    ("may use", "budget"),
)
_GROUPS_PER_TABLE = 5
_PLAIN_WIDTH = 160


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Attributes:
    config: resolved.
    chosen: (key, value) of what `auto` became.
    unserved: a sentence for each setting that this version cannot serve yet.
    """

    config: Config
    deployment: Deployment
    chosen: tuple[tuple[str, Any], ...]
    unserved: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One object: model, plan, ranks, chosen, unserved, problems; sizes are in bytes."""
        content = {
            "model": self._model(),
            "plan": self._plan(),
            "ranks": [_rank(memory, self.deployment.plan) for memory in self.deployment.memories],
            "chosen": dict(self.chosen),
            "unserved": list(self.unserved),
            "problems": list(self.deployment.problems),
        }
        return json.dumps(content, indent=2)

    def _model(self) -> dict[str, Any]:
        spec, model = self.deployment.spec, self.config.models[0]
        return {
            **asdict(model),
            "architecture": spec.architecture,
            "num_layers": spec.num_layers,
            "num_moe_layers": len(spec.moe_layers),
            "num_experts": spec.num_experts,
            "num_experts_per_token": spec.num_experts_per_token,
            "total_parameters": spec.total_parameters,
            "active_parameters": spec.active_parameters,
            "parameters": spec.parameters,
        }

    def _plan(self) -> dict[str, Any]:
        plan = self.deployment.plan
        return {
            "num_ranks": plan.num_ranks,
            "epoch": plan.epoch,
            "pools": [asdict(pool) for pool in plan.pools],
            "reasons": list(self.deployment.reasons),
        }


def print_report(report: CheckReport, file: TextIO) -> None:
    """The report for people; ranks that hold the same are one column."""
    console = report_console(file)
    for line in _model_lines(report):
        console.print(line, markup=False)
    console.print(_plan_table(report.deployment.plan))
    groups = _equal_ranks(report.deployment.memories)
    for start in range(0, len(groups), _GROUPS_PER_TABLE):
        console.print(_memory_table(groups[start : start + _GROUPS_PER_TABLE]))
    for reason in report.deployment.reasons:
        console.print(f"plan  {reason}", markup=False)
    for key, value in report.chosen:
        console.print(f"chosen  {key}: {value}", markup=False)
    for sentence in report.unserved:
        console.print(f"warning  this version cannot serve it yet: {sentence}", markup=False)
    problems = report.deployment.problems
    for problem in problems:
        console.print(f"does not fit  {problem}", markup=False)
    if not problems:
        console.print("fits  every rank has room for its part")


def report_console(file: TextIO) -> Console:
    """A terminal as wide as it is, anything else wide enough for columns."""
    console = Console(file=file, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def _model_lines(report: CheckReport) -> Iterator[str]:
    spec, model = report.deployment.spec, report.config.models[0]
    yield f"model  {model.name} ({spec.architecture}), {model.dtype}, context {model.max_context}"
    yield (
        f"       {_parameters(spec.total_parameters)} parameters, "
        f"{_parameters(spec.active_parameters)} active for each token"
    )
    counts = ", ".join(
        f"{part.replace('_', ' ')} {_parameters(count)}"
        for part, count in spec.parameters.items()
        if count
    )
    yield f"       {counts}"
    experts = f"{spec.num_experts} experts, {spec.num_experts_per_token} for each token"
    moe = f"{len(spec.moe_layers)} of them with {experts}" if spec.moe_layers else "all dense"
    yield f"       {spec.num_layers} layers, {moe}"


def _plan_table(plan: Plan) -> Table:
    table = Table(title="plan", title_justify="left", box=SIMPLE_HEAD)
    for name in ("pool", "device", "ranks", "role", "weights", "experts a rank and layer"):
        table.add_column(name)
    for pool in plan.pools:
        counts = {len(layer.slots[rank]) for layer in plan.layers.values() for rank in pool.ranks}
        table.add_row(
            *(pool.name, pool.device, _span(pool.ranks), pool.role, pool.weight_format),
            _range(counts),
        )
    return table


def _memory_table(groups: Sequence[Sequence[RankMemory]]) -> Table:
    table = Table(title="memory of each rank", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("part")
    for group in groups:
        ranks = [memory.rank for memory in group]
        table.add_column(f"{group[0].pool} {_span(ranks)}", justify="right")
    for title, part in _PARTS:
        table.add_row(title, *(format_bytes(getattr(group[0], part)) for group in groups))
    table.add_row("KV pages", *(str(group[0].num_pages) for group in groups))
    table.add_row("KV tokens", *(str(group[0].num_tokens) for group in groups))
    table.add_row("fits", *("yes" if group[0].fits else "NO" for group in groups))
    return table


def _equal_ranks(memories: Iterable[RankMemory]) -> list[list[RankMemory]]:
    """Runs of neighbours that hold the same; what differs by number alone is left out."""

    def holding(memory: RankMemory) -> tuple[Any, ...]:
        return (memory.pool, *(getattr(memory, part) for _, part in _PARTS), memory.num_pages)

    return [list(group) for _, group in groupby(memories, holding)]


def _rank(memory: RankMemory, plan: Plan) -> dict[str, Any]:
    return {
        **asdict(memory),
        "weights": memory.weights,
        "kv": memory.kv,
        "num_tokens": memory.num_tokens,
        "total": memory.total,
        "shortfall": memory.shortfall,
        "fits": memory.fits,
        "num_slots": plan.num_slots(memory.rank),
        "slots_by_layer": {
            str(layer): len(placement.slots[memory.rank])
            for layer, placement in plan.layers.items()
        },
    }


def _parameters(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _range(counts: set[int]) -> str:
    if not counts:
        return "none"
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
