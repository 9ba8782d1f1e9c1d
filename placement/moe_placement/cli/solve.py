"""Plan a deployment on a given cluster: where experts, replicas and phases go, and why."""

import argparse
from typing import TYPE_CHECKING

from moe_placement.cli.options import (
    add_constraints,
    add_export,
    add_files,
    add_model_and_cluster,
    add_search,
    add_workload,
)

if TYPE_CHECKING:
    from moe_placement.cli.parser import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("solve", help=__doc__, description=__doc__)
    add_model_and_cluster(parser)
    add_workload(parser)
    add_constraints(parser)
    add_search(parser)
    add_files(parser)
    add_export(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Solve, print and write; the exit code.

    Raises:
        InfeasibleError: nothing fits: what is short, and by how much.
    """
    from moe_placement.cli.asked import read_asked
    from moe_placement.cli.console import progress
    from moe_placement.cli.outputs import Found, show
    from moe_placement.solver.solve import solve

    asked = read_asked(options)
    with progress(f"planning {asked.title}") as tell:
        solution = solve(asked.spec, asked.cluster, asked.workload, **asked.question, progress=tell)
    show(Found(solution), asked, options)
    return 0
