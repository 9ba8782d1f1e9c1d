"""A real `mpirun -n N moe_serve` on loopback, for tests; ended by its own process ids."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from moe_serve.control.meeting.mpirun import mpirun_command

ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


def server_config(path: Path | str, ranks: int, **sections: Any) -> dict[str, Any]:
    """A config for CPU ranks of one thread on a port of their own choice."""
    return {
        "model": {"path": str(path), "dtype": "float32", "name": "tiny"},
        "pools": [{"name": "host", "device": "cpu", "ranks": ranks, "threads": 1}],
        "cache": {"page_size": 16, "num_pages": 256},
        "server": {"port": 0},
        "deterministic": True,
    } | sections


def mpirun(num_ranks: int, *words: str) -> list[str]:
    return mpirun_command(num_ranks, words)


class LiveServer:
    """A server under test.

    Attributes:
        url: where it answers, once it is ready.
        output: everything it printed so far.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        self.url = ""
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.url:
            line = self._next_line(deadline)
            if line is None:
                raise AssertionError(f"the server ended before it was ready:\n{self.output}")
            if line.startswith("ready "):
                self.url = line.removeprefix("ready ").strip()

    def wait_for_end(self, seconds: float) -> int:
        """The exit code; all output has been read by then."""
        deadline = time.monotonic() + seconds
        code = self.process.wait(seconds)
        while self._next_line(deadline) is not None:
            pass
        return code

    def family(self) -> list[psutil.Process]:
        """Every process that belongs to this server, mpirun first."""
        launcher = psutil.Process(self.process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def ranks(self) -> list[psutil.Process]:
        """The rank processes by rank."""
        found = {}
        for process in self.family():
            number = process.environ().get("OMPI_COMM_WORLD_RANK")
            if number is not None:
                found[int(number)] = process
        return [found[number] for number in sorted(found)]

    def drain(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End whatever is left of it."""
        if self.process.poll() is None:
            family = self.family()
            for process in family:
                if process.is_running():
                    process.kill()
            psutil.wait_procs(family, 10)
        self.process.wait()
        self._reader.join(10)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put(None)

    def _next_line(self, deadline: float) -> str | None:
        try:
            line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            raise TimeoutError(f"the server said nothing more:\n{self.output}") from None
        self.output += line or ""
        return line


@contextmanager
def live_server(
    folder: Path, num_ranks: int, config: Mapping[str, Any], ready: bool = True
) -> Iterator[LiveServer]:
    """`mpirun -n num_ranks moe_serve --config ...`, ready unless told not to wait."""
    file = folder / f"server-{time.monotonic_ns()}.yaml"
    file.write_text(yaml.safe_dump(dict(config)))
    command = [sys.executable, "-m", "moe_serve.cli", "--config", str(file)]
    server = LiveServer(mpirun(num_ranks, *command) if num_ranks > 1 else command)
    try:
        if ready:
            server.wait_until_ready()
        yield server
    finally:
        server.kill()
