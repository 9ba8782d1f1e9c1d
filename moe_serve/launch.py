"""`python -m moe_serve.launch -n 2 --config FILE`: mpirun with the right flags, ended by Ctrl-C.

mpirun answers Ctrl-C by killing its ranks. Here it runs in a session of its own, so that Ctrl-C
reaches the launcher alone, which asks the ranks to drain; a second Ctrl-C ends them at once, and
so does the first one before they serve.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from moe_serve.config.load import load_config
from moe_serve.config.tree import Config
from moe_serve.config.validate import model_name
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.control.meeting.world import die_with_parent, served_pools
from moe_serve.errors import MoeServeError

_READY = b"ready "


def main() -> int:
    options = _parser().parse_args()
    try:
        config = load_config(options.config, options.set)
        served = served_pools(config, options.pools.split(",") if options.pools else [])
        ranks = rank_command(options.config, options.set, served if options.pools else ())
        num_ranks = sum(pool.ranks for pool in config.pools if pool.name in served)
        return launch(mpirun_command(options.num_ranks or num_ranks, ranks), config)
    except MoeServeError as error:
        print(f"moe_serve: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def rank_command(config: str, overrides: Sequence[str], pools: Sequence[str] = ()) -> list[str]:
    """What each rank runs.

    Args:
        pools: of this mpirun, where it is not all of the world.
    """
    words = [word for override in overrides for word in ("--set", override)]
    words += ["--pools", ",".join(pools)] if pools else []
    return [sys.executable, "-m", "moe_serve.cli", "--config", config, *words]


def curl_line(url: str, config: Config) -> str:
    """A command that streams an answer from the server at `url`."""
    body = {
        "model": model_name(config.models[0]),
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 32,
        "stream": True,
    }
    words = ["curl", "-N", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    key = ' -H "Authorization: Bearer $API_KEY"' if config.server.api_keys else ""
    return f"{shlex.join(words)}{key} -d {shlex.quote(json.dumps(body))}"


def launch(command: list[str], config: Config) -> int:
    """Run an mpirun command to its end; its exit code.

    SIGINT or SIGTERM once drains what serves, twice ends it at once.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=mpirun_environment(),
        preexec_fn=_end_with_launcher(os.getpid()),
    )
    interrupts = _Interrupts(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupts.take)
    for line in _pass_through(process):
        if line.startswith(_READY):
            interrupts.drain_first()
            url = line.removeprefix(_READY).decode().strip()
            print(f"try: {curl_line(url, config)}", flush=True)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_with_launcher(launcher: int) -> Callable[[], None]:
    """For the child: mpirun gets SIGTERM, and ends its ranks, when the launcher dies."""

    def prepare() -> None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != launcher:
            os._exit(1)

    return prepare


class _Interrupts:
    """Answers one signal after the other, each time in a harsher way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._answers = [signal.SIGKILL, signal.SIGTERM]

    def drain_first(self) -> None:
        """There is something to drain."""
        self._answers.append(signal.SIGUSR1)

    def take(self, _number: int, _frame: object) -> None:
        answer = self._answers.pop() if len(self._answers) > 1 else self._answers[0]
        if answer is signal.SIGUSR1:
            print("\ndraining; once more to end at once", file=sys.stderr, flush=True)
        self._process.send_signal(answer)


def _pass_through(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Writes what the process prints; yields its lines."""
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        yield line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moe_serve.launch", description="Run moe_serve on ranks.")
    parser.add_argument("-n", "--num-ranks", type=int, help="default: as many as the pools need")
    parser.add_argument("--config", required=True, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--pools", metavar="NAME,...", help="those of this mpirun; default: all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
