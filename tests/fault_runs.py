"""Runs of `moe_serve` that are made to fail, and what is left of them: nothing."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
from live_server import ENVIRONMENT

ERROR = "moe_serve: error: "
_MARK = "MOE_SERVE_TEST_RUN"
_FRONT_END = "moe_serve.edge.main"


class Run:
    """A command and all processes that come of it, known by a mark in their environment.

    Args:
        folder: its working directory, and where its output goes.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._mark = uuid4().hex
        self._streams = [folder / f"{self._mark}.{name}" for name in ("out", "err")]
        with self._streams[0].open("wb") as output, self._streams[1].open("wb") as errors:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=folder,
                env=ENVIRONMENT | {_MARK: self._mark},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._streams[0].read_text()

    @property
    def errors(self) -> str:
        return self._streams[1].read_text()

    @property
    def error_lines(self) -> list[str]:
        """What it told its user, each line once for every time that it was told."""
        lines = self.errors.splitlines()
        return [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]

    def wait_until_ready(self, seconds: float = 60.0) -> str:
        """The URL at which it serves."""
        deadline = time.monotonic() + seconds
        while "\nready " not in "\n" + self.output:
            assert self.process.poll() is None, f"ended before it was ready\n{self.errors}"
            assert time.monotonic() < deadline, f"not ready in {seconds} s\n{self.errors}"
            time.sleep(0.05)
        return self.output.split("ready ")[1].split()[0]

    def wait_for_end(self, seconds: float) -> int:
        """The exit code; whoever is left of the family gets a moment to follow."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end in {seconds} s\n{self.output}\n{self.errors}") from None
        deadline = time.monotonic() + 5.0
        while left := self.family():
            assert time.monotonic() < deadline, f"left behind: {left}\n{self.errors}"
            time.sleep(0.05)
        return code

    def seconds_since_start(self) -> float:
        return time.monotonic() - self.started

    def family(self) -> list[psutil.Process]:
        """Every living process of the run, wherever its parents are."""
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def rank(self, number: int) -> psutil.Process:
        (found,) = (
            process
            for process in self.family()
            if process.environ().get("OMPI_COMM_WORLD_RANK") == str(number)
        )
        return found

    def ranks(self) -> list[psutil.Process]:
        return [process for process in self.family() if "OMPI_COMM_WORLD_RANK" in process.environ()]

    def front_end(self) -> psutil.Process:
        (found,) = (process for process in self.family() if _FRONT_END in process.cmdline())
        return found

    def kill(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait()

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            return is_alive and process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False


class Stream:
    """A streamed completion read by a thread of its own.

    Attributes:
        events: what came so far.
        broken: how the connection ended, where it did not end in order.
    """

    def __init__(
        self, url: str, max_tokens: int, prompt: Sequence[int] = (5, 6, 7, 8), **fields: Any
    ) -> None:
        self._url = url
        self._body = {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
        self.events: list[dict[str, Any]] = []
        self.broken: httpx.HTTPError | None = None
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for_first(self, seconds: float = 30.0) -> None:
        assert self._has_begun.wait(seconds), "no first token"
        assert self.events, self.broken

    def wait_for_end(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream is still open"

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    @property
    def error(self) -> dict[str, Any] | None:
        """OpenAI's error object, if that is how it ended."""
        found: dict[str, Any] | None = self.events[-1].get("error")
        return found

    @property
    def tokens(self) -> list[str]:
        """Those that came so far, where `logprobs` was asked for."""
        return [
            token
            for event in self.events
            for choice in event.get("choices", ())
            for token in (choice["logprobs"] or {"tokens": ()})["tokens"]
        ]

    @property
    def num_tokens(self) -> int:
        """Of a stream that has ended in order."""
        usage = self.events[-1]["usage"]
        return int(usage["completion_tokens"])

    def _read(self) -> None:
        try:
            for event in self._events():
                self.events.append(event)
                self._has_begun.set()
        except httpx.HTTPError as error:
            self.broken = error
        self._has_begun.set()

    def _events(self) -> Iterator[dict[str, Any]]:
        url = f"{self._url}/v1/completions"
        with httpx.stream("POST", url, json=self._body, timeout=60.0) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))


def open_streams(url: str, number: int, max_tokens: int) -> list[Stream]:
    """Streams that have begun."""
    streams = [Stream(url, max_tokens) for _ in range(number)]
    for stream in streams:
        stream.wait_for_first()
    return streams


def serve_command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "moe_serve.cli", "--config", str(config), *words]


def drain(run: Run, url: str, ask: Callable[[], object]) -> None:
    """Ask a server with open streams to drain, and see that it does."""
    with httpx.Client(base_url=url, timeout=30.0) as client:
        streams = open_streams(url, 4, 200)
        ask()
        deadline = time.monotonic() + 30.0
        while client.get("/ready").status_code != 503:
            assert time.monotonic() < deadline, "it does not drain"
            time.sleep(0.01)
        body = {"prompt": [5, 6, 7, 8], "max_tokens": 1}
        assert client.post("/v1/completions", json=body).status_code == 503
        assert client.get("/health").status_code == 200
        assert any(stream.is_open for stream in streams)
    for stream in streams:
        stream.wait_for_end(120.0)
        assert stream.broken is None
        assert stream.error is None
        assert stream.num_tokens == 200
    assert run.wait_for_end(30.0) == 0, run.errors
    assert run.error_lines == []
