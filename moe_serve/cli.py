"""`moe_serve`: reads the config, checks it against the launch, then serves or checks."""

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from moe_serve.config.load import load_config
from moe_serve.control.model_json import require_weights
from moe_serve.control.world import (
    LaunchedWorld,
    check_world_size,
    die_with_parent,
    launched_world,
)
from moe_serve.errors import ConfigError, EngineDeadError, MoeServeError

_USER_ERROR = 2
_INTERRUPTED = 130


def main() -> NoReturn:
    """The `moe_serve` command; never returns, so that no exit handler waits for other ranks."""
    _leave(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit code of the command with these arguments; errors are told on stderr."""
    world = LaunchedWorld()
    try:
        world = launched_world()
        return _run(arguments, world)
    except MoeServeError as error:
        _tell(error, world)
        return 1 if isinstance(error, EngineDeadError) else _USER_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception:
        traceback.print_exc()
        return 1


def _run(arguments: Sequence[str], world: LaunchedWorld) -> int:
    options = _parser().parse_args(arguments)
    if options.json and not options.check:
        raise ConfigError("--json: prints what --check finds; give both")
    config = load_config(options.config, options.set)
    if world.is_launched:
        die_with_parent()
    if world.is_launched or not options.check:
        check_world_size(config, world)
    # Torch is loaded by what follows, if at all: nothing above may take seconds to say no.
    if options.check:
        from moe_serve.check import check

        return check(config, world, as_json=options.json)
    require_weights(config)
    logging.basicConfig(
        level=logging.INFO if world.rank == 0 else logging.WARNING,
        format=f"%(asctime)s rank {world.rank} %(levelname)s %(name)s: %(message)s",
    )
    from moe_serve.serve import serve

    return serve(config, world)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is told."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see moe_serve --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="moe_serve", description="Serve a mixture-of-experts model.")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file; see configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        help="lay a value over the file's, list entries by number: pools.0.ranks=4",
    )
    parser.add_argument(
        "--check", action="store_true", help="print the plan and memory per rank, start nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --check: print JSON")
    parser.add_argument("--version", action="version", version=f"moe_serve {version('moe-serve')}")
    return parser


def _tell(error: MoeServeError, world: LaunchedWorld) -> None:
    """One line from the lowest failing rank: its exit makes mpirun end the ranks that wait."""
    if world.rank > 0:
        time.sleep(min(1.0 + 0.5 * (world.rank - 1), 5.0))
    message = " ".join(str(error).split())
    print(f"moe_serve: error: {message}", file=sys.stderr, flush=True)


def _leave(code: int) -> NoReturn:
    """Exit, and after an error at once: MPI's exit handler would wait for the other ranks."""
    if code == 0:
        sys.exit(0)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
