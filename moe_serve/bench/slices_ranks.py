"""Ranks of the slices benchmark: started by mpirun, asked for one run after the other, ended."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml

from moe_serve.bench.slices_job import READY, RankLog, Run
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.control.meeting.world import die_with_parent
from moe_serve.errors import ConfigError

_READY_SECONDS = 120.0
# Beyond those of a run.
_SECONDS_MORE = 60.0
_END_SECONDS = 30.0


class SlicesRanks:
    """
    Raises:
        ConfigError: from every call, where the ranks end or fall silent; has their last words.
    """

    def __init__(self, process: "subprocess.Popen[str]", words: Path) -> None:
        self._process = process
        self._words = words

    def wait_until_ready(self) -> None:
        while self._read(_READY_SECONDS) != READY:
            pass

    def run(self, run: Run) -> list[RankLog]:
        """-> the logs, by rank."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(run).decode() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        file = Path(self._read(run.warm_up + run.seconds + run.patience + _SECONDS_MORE))
        logs = msgspec.msgpack.decode(file.read_bytes(), type=list[RankLog])
        file.unlink()
        return logs

    def end(self) -> None:
        """Let them leave; make them, where they do not."""
        assert self._process.stdin is not None
        # Where mpirun's own input ends, that of its ranks goes on.
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """mpirun answers SIGTERM by ending its ranks."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self, seconds: float) -> str:
        assert self._process.stdout is not None
        # Whoever waits for the line gets its end.
        watchdog = threading.Timer(seconds, self._process.terminate)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            raise self._failure()
        return line.strip()

    def _failure(self) -> ConfigError:
        lines = self._words.read_text(errors="replace").strip().splitlines() or ["nothing"]
        return ConfigError(
            f"ranks of the slices benchmark ended or did not answer; last words: {lines[-1]}"
        )


@contextmanager
def serving(config: Mapping[str, Any], folder: Path, num_ranks: int = 1) -> Iterator[SlicesRanks]:
    """Ranks that host the models of a config, ended behind.

    Args:
        folder: of these ranks alone; made here.

    Raises:
        ConfigError: they do not come up.
    """
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    command = [sys.executable, "-m", "moe_serve.bench.slices_worker", str(folder)]
    words = folder / "words.log"
    with (
        words.open("wb") as errors,
        subprocess.Popen(
            mpirun_command(num_ranks, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=mpirun_environment(),
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        ) as process,
    ):
        ranks = SlicesRanks(process, words)
        try:
            ranks.wait_until_ready()
            yield ranks
        except BaseException:
            ranks.kill()
            raise
        ranks.end()
