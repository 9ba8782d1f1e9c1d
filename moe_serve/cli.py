"""`moe_serve`: reads the config, checks it against the launch, then serves or checks."""

import argparse
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import NoReturn

from moe_serve.config.load import load_config
from moe_serve.config.tree import Config
from moe_serve.control.meeting.join import join, tell_other_mpiruns
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import (
    LaunchedWorld,
    die_with_parent,
    in_pools,
    launched_world,
    roll_call,
)
from moe_serve.control.requests.drain import DrainSignals
from moe_serve.control.requests.front_end import listen
from moe_serve.early_checks import check_front_end, check_memory, check_models, check_plan
from moe_serve.errors import AgreedError, ConfigError, EngineDeadError, MoeServeError
from moe_serve.even_steps import unwatched_imports
from moe_serve.huge_pages import ask_for_huge_pages
from moe_serve.served_digests import served_digests

_USER_ERROR = 2
_INTERRUPTED = 130
# mpirun ends the ranks that leave the word to rank 0 long before.
_SILENT_SECONDS = 5.0


def main() -> NoReturn:
    """The `moe_serve` command; never returns, so that no exit handler waits for other ranks."""
    # Where torch-npu is installed, torch loads it for every rank, and dies where there is no CANN.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
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
        _let_others_connect(world)
        return 1


def _run(arguments: Sequence[str], world: LaunchedWorld) -> int:
    options = _parser().parse_args(arguments)
    if options.json and not options.check:
        raise ConfigError("--json: prints what --check finds; give both")
    if world.is_launched:
        die_with_parent()
    return _check(options, world) if options.check else _serve(options, world)


def _check(options: argparse.Namespace, world: LaunchedWorld) -> int:
    config = load_config(options.config, options.set, to_serve=False)
    if world.is_launched:
        in_pools(config, world, options.pools)
    from moe_serve.check import check

    return check(config, world, as_json=options.json)


def _serve(options: argparse.Namespace, world: LaunchedWorld) -> int:
    drain_signals = DrainSignals()
    ranks = roll_call(world)
    config = together(ranks, lambda: load_config(options.config, options.set))
    try:
        launch = together(ranks, lambda: in_pools(config, world, options.pools))
        numbers = [int(rank) for rank in ranks.allgather_bytes(b"%d" % launch.rank)]
        listener = together(ranks, lambda: _prepare(config, launch), numbers)
    except AgreedError as error:
        tell_other_mpiruns(config, options.pools, ranks, str(error))
        raise
    launch = join(config, launch, ranks, partial(served_digests, config))
    together(ranks, lambda: _check_world(config, launch), numbers)
    logging.basicConfig(
        level=logging.INFO if launch.rank == 0 else logging.WARNING,
        format=f"%(asctime)s rank {launch.rank} %(levelname)s %(name)s: %(message)s",
    )
    ask_for_huge_pages()
    # Torch is loaded here: nothing above may take seconds to say no.
    with unwatched_imports():
        from moe_serve.serve import serve
    return serve(config, launch, listener, drain_signals)


def _prepare(config: Config, launch: LaunchedWorld) -> socket.socket | None:
    """What needs no torch; on plan rank 0 the HTTP socket."""
    check_models(config)
    check_memory(config, launch.rank)
    if launch.rank > 0:
        return None
    check_front_end(config)
    return listen(config.server.host, config.server.port)


def _check_world(config: Config, launch: LaunchedWorld) -> None:
    """What all ranks of all mpiruns find alike."""
    from moe_serve.control.planning.shared_memory import check_shared_memory

    assert launch.joined is not None
    check_shared_memory(config, launch.joined.membership)
    check_plan(config)


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
        "--pools",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="the pools whose ranks this mpirun is; other mpiruns are the others (world.address)",
    )
    parser.add_argument(
        "--check", action="store_true", help="print the plan and memory per rank, start nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --check: print JSON")
    parser.add_argument("--version", action="version", version=f"moe_serve {version('moe-serve')}")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _tell(error: MoeServeError, world: LaunchedWorld) -> None:
    """One line from the lowest failing rank: its exit makes mpirun end the ranks that wait."""
    if isinstance(error, AgreedError) and world.rank > 0:
        time.sleep(_SILENT_SECONDS)
        return
    if world.rank > 0:
        time.sleep(min(1.5 + 0.5 * (world.rank - 1), 5.0))
    message = " ".join(str(error).split())
    print(f"moe_serve: error: {message}", file=sys.stderr, flush=True)
    if not isinstance(error, AgreedError):
        _let_others_connect(world)


def _let_others_connect(world: LaunchedWorld) -> None:
    """An mpirun that ends its job while a rank is just connecting to it crashes or hangs (seen
    with Open MPI 5.0.11), and ranks that start together come there together."""
    if world.size > 1:
        time.sleep(0.5)


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
