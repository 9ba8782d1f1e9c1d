"""`moe_plan`: what is needed, what it gives, what it costs; one plan for planner and engine.

Exit codes: 0 done; 1 what was asked for cannot be had; 2 wrong input, told in one line.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from moe_placement.cli.parser import Parser, UsageError

_COMMANDS = ("solve", "simulate", "capacity", "pack", "validate", "calibrate")
_INFEASIBLE = 1
_USER_ERROR = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command with these arguments; errors are told on stderr."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parser().parse_args(words)
        options.command_line = shlex.join(["moe_plan", *words])
        return int(options.run(options))
    except ValueError as error:
        code = _code_of(error)
        if code is None:
            raise
        print(f"moe_plan: error: {' '.join(str(error).split())}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("moe_plan: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read, as `head`, has enough; what is left must not be flushed at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="moe_plan",
        description="Plan a deployment of a mixture-of-experts model over unlike accelerators.",
        epilog="docs/planning.md walks from a model's name to a config that runs.",
    )
    parser.add_argument("--version", action="version", version=f"moe_plan {version('moe-serve')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name in _COMMANDS:
        import_module(f"moe_placement.cli.{name}").add_parser(subparsers)
    return parser


def _code_of(error: ValueError) -> int | None:
    """None for a fault of the program: users' errors are ValueErrors of a class of our own."""
    if isinstance(error, UsageError):
        return _USER_ERROR
    if not type(error).__module__.startswith("moe_placement."):
        return None
    from moe_placement.solver.constraints import InfeasibleError

    return _INFEASIBLE if isinstance(error, InfeasibleError) else _USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
