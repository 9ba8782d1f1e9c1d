"""The cheapest or smallest cluster and plan that meets service levels, or what a cluster serves."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from moe_placement.cli.options import (
    add_constraints,
    add_files,
    add_model_and_cluster,
    add_search,
    add_workload,
)
from moe_placement.cli.parser import UsageError

if TYPE_CHECKING:
    from moe_placement.cli.asked import Asked
    from moe_placement.cli.outputs import Found
    from moe_placement.cli.parser import Subparsers
    from moe_placement.solver.workers.candidates import Progress


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "capacity",
        help=__doc__,
        description=f"{__doc__} With --rate or a trace it finds the least of the given devices "
        "that serve it; without, how many requests a second all of them serve.",
    )
    add_model_and_cluster(parser)
    add_workload(parser)
    parser.add_argument(
        "--goal",
        choices=("cheapest", "smallest"),
        help="least cost an hour, or fewest devices; cheapest where every group has a price",
    )
    add_constraints(parser)
    add_search(parser)
    add_files(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Search, print and write; the exit code.

    Raises:
        UsageError: clients in a loop, which come at no rate.
        InfeasibleError: all of the devices together are not enough: what is short.
    """
    from moe_placement.cli.asked import read_asked
    from moe_placement.cli.console import progress
    from moe_placement.cli.outputs import show

    if options.concurrency:
        raise UsageError("--concurrency: capacity is planned for a stream; give --rate instead")
    asked = read_asked(options)
    with progress(f"sizing {asked.title}") as tell:
        if asked.workload.rate:
            asked, found = _least(asked, options.goal, tell)
        else:
            asked, found = _most(asked, tell)
    show(found, asked, options)
    return 0


def _least(asked: "Asked", goal: str | None, tell: "Progress") -> "tuple[Asked, Found]":
    """The least of the devices, as cheap or as few as can be."""
    from moe_placement.capacity.search import find_capacity
    from moe_placement.cli.outputs import Found

    priced = all(group.price_per_hour is not None for group in asked.cluster.groups)
    answer = find_capacity(
        asked.spec,
        asked.cluster,
        asked.workload,
        **asked.question,
        goal="smallest" if goal == "smallest" or not (goal or priced) else "cheapest",
        progress=tell,
    )
    solution = replace(answer.solution, alternatives=answer.alternatives)
    return replace(asked, cluster=answer.cluster), Found(solution, answer.pareto)


def _most(asked: "Asked", tell: "Progress") -> "tuple[Asked, Found]":
    """What all of the devices serve."""
    from moe_placement.capacity.traffic import find_traffic
    from moe_placement.cli.outputs import Found

    answer = find_traffic(
        asked.spec, asked.cluster, asked.workload, **asked.question, progress=tell
    )
    workload = replace(asked.workload, rate=answer.request_rate)
    return replace(asked, workload=workload), Found(answer.solution, answer.pareto)
