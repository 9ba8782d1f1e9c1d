"""`moe_serve --check` of several models: who is where with which share, and whether it fits."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from moe_placement.memory.report import format_bytes
from rich.box import SIMPLE_HEAD
from rich.table import Table

from moe_serve.check_report import report_console
from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.own_processors import core_problems
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.planning.tenant_view import Candidate, plan_slices, plan_tenant
from moe_serve.errors import PlacementError
from moe_serve.messages import ALL_RANKS, PlacedTenant
from moe_serve.published import published_json

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SlicesReport:
    """Attributes:
    deployments: by number of the tenant, of those that generate text.
    core_problems: why ranks' processors cannot be divided as asked.
    """

    candidates: Sequence[Candidate]
    slices: SlicePlan
    deployments: dict[int, Deployment]
    core_problems: Sequence[str] = ()

    @staticmethod
    def of(config: Config, memories: Sequence[int], num_cores: int = 0) -> "SlicesReport":
        """
        Args:
            config: not resolved.
            memories: bytes of each rank's device.
            num_cores: of each rank that is on this host's processors; 0 is not known.

        Raises:
            MoeServeError: a model that cannot be served; or what does not fit.
        """
        candidates, slices = plan_slices(config, memories, published_json)
        deployments = {
            each.number: plan_tenant(config, each, read_json=published_json)[1]
            for each, candidate in zip(slices.tenants, candidates, strict=True)
            if candidate.task == "generate"
        }
        problems = core_problems(config, slices.tenants, num_cores)
        return SlicesReport(candidates, slices, deployments, problems)

    @property
    def problems(self) -> list[str]:
        fits = [
            f"{self.slices.tenant(number).model.name}: {problem}"
            for number, deployment in self.deployments.items()
            for problem in deployment.problems
        ]
        return [*fits, *self.core_problems]

    def require_fit(self) -> None:
        """Raise PlacementError unless every model fits its slice, and each rank its models."""
        if self.problems:
            raise PlacementError("; ".join(self.problems))

    def to_json(self) -> str:
        """One object: slices, ranks, problems; memory in bytes."""
        ranks = [
            {
                "rank": rank,
                "budget": budget,
                "taken": sum(each.memory for each in self.slices.on(rank)),
                "free_share": self.slices.free_share(rank),
            }
            for rank, budget in enumerate(self.slices.budgets)
        ]
        slices = [self._values(each) for each in self.slices.tenants]
        return json.dumps({"slices": slices, "ranks": ranks, "problems": self.problems}, indent=2)

    def table(self) -> Table:
        table = Table(title="slices of each rank", title_justify="left", box=SIMPLE_HEAD)
        for name in ("model", "task", "rank", "mode"):
            table.add_column(name)
        for name in ("percent", "memory", "weights", "KV pages", "KV tokens"):
            table.add_column(name, justify="right")
        for tenant in self.slices.tenants:
            values = self._values(tenant)
            table.add_row(
                tenant.model.name,
                values["task"],
                str(values["rank"]),
                tenant.model.slice.mode,
                f"{100 * tenant.share:g}",
                format_bytes(tenant.memory),
                format_bytes(values["weights"]) if "weights" in values else "",
                str(values.get("num_pages", "")),
                str(values.get("num_tokens", "")),
            )
        return table

    def _values(self, tenant: PlacedTenant) -> dict[str, Any]:
        values = {
            "model": asdict(tenant.model),
            "task": self.candidates[tenant.number].task,
            "rank": "all" if tenant.rank == ALL_RANKS else tenant.rank,
            "share": tenant.share,
            "memory": tenant.memory,
        }
        if tenant.number in self.deployments:
            memories = self.deployments[tenant.number].memories
            values |= {
                "weights": max(each.weights for each in memories),
                "num_pages": min(each.num_pages for each in memories if each.page_bytes),
                "num_tokens": min(each.num_tokens for each in memories if each.page_bytes),
            }
        return values


def print_slices(report: SlicesReport, file: TextIO) -> None:
    console = report_console(file)
    console.print(report.table())
    for problem in report.problems:
        console.print(f"does not fit  {problem}", markup=False)
    if not report.problems:
        console.print("fits  every model has room in its slice")
