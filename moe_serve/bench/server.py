"""A server of a benchmark: `mpirun moe_serve` on loopback, and its counters."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.control.meeting.world import die_with_parent
from moe_serve.errors import ConfigError

_READY_SECONDS = 120.0
_END_SECONDS = 30.0
_ANSWER_SECONDS = 20.0
_LOOK_SECONDS = 0.05
_READY = "ready "


@contextmanager
def serving(config: Path, num_ranks: int) -> Iterator[str]:
    """Where a server answers, which is ended behind.

    Raises:
        ConfigError: it does not come up; the message has the last line that it wrote.
    """
    log = config.with_suffix(".log")
    command = [sys.executable, "-m", "moe_serve.cli", "--config", str(config)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            mpirun_command(num_ranks, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=mpirun_environment(),
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        ) as process,
    ):
        try:
            yield _wait_until_ready(process, log)
        finally:
            _end(process)


def read_counters(url: str, names: Mapping[str, str]) -> dict[str, float]:
    """Counters of the ranks, each added up over them.

    Args:
        names: of counters in /metrics, by what to call them.
    """
    with urlopen(f"{url}/metrics", timeout=_ANSWER_SECONDS) as answer:
        text = answer.read().decode()
    totals = dict.fromkeys(names, 0.0)
    called = {f"moe_serve_{name}_total": key for key, name in names.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in called:
                totals[called[sample.name]] += sample.value
    return totals


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith(_READY) and line.endswith("\n"):
                return line.removeprefix(_READY).strip()
        time.sleep(_LOOK_SECONDS)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip(" -")]
    last = lines[-1].strip() if lines else "nothing"
    raise ConfigError(f"the server of {log.stem} is not ready; its last words: {last}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """mpirun answers SIGTERM by ending its ranks at once; no request is left."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
