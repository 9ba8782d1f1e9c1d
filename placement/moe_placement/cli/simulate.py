"""Run a workload through a plan, event by event: percentiles, goodput, utilisation, traffic."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_placement.cli.options import (
    add_constraints,
    add_model_and_cluster,
    add_search,
    add_workload,
)
from moe_placement.cli.parser import UsageError

if TYPE_CHECKING:
    from moe_placement.cli.asked import Asked
    from moe_placement.cli.parser import Subparsers
    from moe_placement.plan import Plan
    from moe_placement.serving.workload import Prediction
    from moe_placement.simulator.arrivals import ClosedLoop
    from moe_placement.simulator.incidents import Failure
    from moe_placement.simulator.result import SimulationResult
    from moe_placement.simulator.scheduler import SimulatedRequest


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("simulate", help=__doc__, description=__doc__)
    add_model_and_cluster(parser)
    add_workload(parser)
    add_constraints(parser)
    add_search(parser)
    group = parser.add_argument_group("simulation")
    group.add_argument(
        "--plan", type=Path, metavar="FILE.json", help="to run; by default it is solved for first"
    )
    group.add_argument(
        "--requests", type=int, default=1000, metavar="N", help="how many; 1000, or a trace's first"
    )
    group.add_argument("--until", type=float, metavar="SECONDS", help="to stop at")
    group.add_argument(
        "--scheduler",
        default="stand-in",
        metavar="NAME",
        help="stand-in, or engine: moe_serve's own, where it is installed",
    )
    group.add_argument(
        "--fail",
        action="append",
        default=[],
        metavar="WORKER@FROM[-UNTIL]",
        help="seconds in which a worker is away, as 0@60-90; may be given more than once",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Simulate and print; the exit code."""
    from dataclasses import replace

    from moe_placement.cli.asked import read_asked
    from moe_placement.cli.console import progress
    from moe_placement.cli.simulated_plan import simulated_deployment
    from moe_placement.report.simulation_tables import simulation_values
    from moe_placement.simulator.simulation import simulate

    _check(options)
    asked = read_asked(options)
    plan, predicted = _plan(options, asked)
    deployment = simulated_deployment(plan, asked, options.scheduler)
    try:
        deployment = replace(deployment, failures=tuple(map(_failure, options.fail)))
    except ValueError as error:
        raise UsageError(f"--fail: {error}") from error
    with progress("simulating") as tell:
        result = simulate(
            deployment,
            _requests(options, asked),
            seed=options.seed,
            until=options.until,
            progress=partial(tell, "requests"),
        )
    if options.json:
        print(json.dumps(simulation_values(result, asked.objective, predicted), indent=2))
    else:
        _print(asked, result, predicted)
    return 0


def _check(options: argparse.Namespace) -> None:
    from moe_placement.simulator.scheduler_choice import find_scheduler

    if options.requests < 1:
        raise UsageError(f"--requests is {options.requests}; it must be at least 1")
    if not (options.trace or options.rate or options.concurrency):
        raise UsageError("--rate, --concurrency or --trace: one says how requests come; give it")
    try:
        find_scheduler(options.scheduler)
    except ValueError as error:
        raise UsageError(f"--scheduler: {error}") from error


def _plan(options: argparse.Namespace, asked: "Asked") -> "tuple[Plan, Prediction | None]":
    """The plan, and what the solver predicts of it where it made it."""
    if options.plan:
        from moe_placement.memory.rank_memory import check_model
        from moe_placement.plan_file import load

        plan = load(options.plan)
        check_model(plan, asked.spec)
        return plan, None
    from moe_placement.cli.console import progress
    from moe_placement.solver.solve import solve

    with progress(f"planning {asked.title}") as tell:
        solution = solve(asked.spec, asked.cluster, asked.workload, **asked.question, progress=tell)
    return solution.plan, solution.prediction


def _requests(
    options: argparse.Namespace, asked: "Asked"
) -> "Sequence[SimulatedRequest] | ClosedLoop":
    """Those of the trace, at the rate or in the loop that was asked for, else made from means."""
    from moe_placement.simulator.arrivals import ClosedLoop
    from moe_placement.simulator.traces import read_trace
    from moe_placement.simulator.workload import requests_of, speed_up

    if not options.trace:
        return requests_of(asked.workload, options.requests, options.seed)
    requests = read_trace(options.trace, options.requests)
    if options.concurrency:
        return ClosedLoop(requests, options.concurrency)
    if options.rate and len(requests) > 1:
        seconds = max(request.arrival for request in requests)
        return speed_up(requests, options.rate * seconds / (len(requests) - 1))
    return requests


def _failure(text: str) -> "Failure":
    from moe_placement.simulator.incidents import Failure

    worker, _, when = text.partition("@")
    start, has_end, end = when.partition("-")
    try:
        until: dict[str, Any] = {"until": float(end)} if has_end else {}
        return Failure(worker=int(worker), at=float(start), **until)
    except ValueError:
        raise UsageError(f"--fail {text!r}: write WORKER@FROM-UNTIL, as 0@60-90") from None


def _print(asked: "Asked", result: "SimulationResult", predicted: "Prediction | None") -> None:
    from moe_placement.cli.console import print_pairs, print_table
    from moe_placement.report.simulation_tables import counts, times_table, traffic_table

    print(asked.title)
    print(asked.sentence)
    print_pairs(counts(result, asked.objective))
    print_table(times_table(result, predicted))
    print_table(traffic_table(result))
