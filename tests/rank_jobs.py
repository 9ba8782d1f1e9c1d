"""Real ranks that wait for jobs, one launch for each number of ranks, and what to ask of them."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil
import torch
import yaml
from families import NUM_SPECIAL, VOCAB_SIZE
from live_server import ENVIRONMENT, mpirun, server_config

TESTS = Path(__file__).parent
WORKER = TESTS / "moe_serve" / "parallel" / "worker.py"
# Of the tests a folder is called as one of the packages.
PATHS = f"{TESTS.parent}:{TESTS}"
JOB_SECONDS = 120.0
# Best two logits this near may change places.
NEAR = 1e-4

Job = dict[str, Any]


def prompts_of(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(NUM_SPECIAL, VOCAB_SIZE, length).tolist() for length in lengths]


# The last one's keys lie in two tiles of the deterministic attention.
PROMPTS = prompts_of((1, 5, 17, 33, 64, 150))


def job(path: Path, num_ranks: int, rounds: Sequence[Sequence[Job]], **sections: Any) -> Job:
    """A job for `Ranks.run`: requests that are generated together, round after round.

    Args:
        sections: of the config; and `dtype`, `collective`, `plan` (a file), `fault`.
    """
    config = server_config(path, num_ranks)
    config["model"]["dtype"] = sections.pop("dtype", "float32")
    config["pools"][0]["collective"] = sections.pop("collective", "mpi")
    config["placement"] = {"plan": str(sections.pop("plan", "auto"))}
    config["cache"] |= {"prefix": False, **sections.pop("cache", {})}
    fault = {"fault": sections.pop("fault")} if "fault" in sections else {}
    return {"config": config | sections, "rounds": rounds, **fault}


def greedy(prompt: Sequence[int], num_tokens: int = 24) -> Job:
    """A request for the most likely tokens, with the five best log-probabilities of each step."""
    return {
        "prompt": list(prompt),
        "temperature": 0.0,
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "logprobs": 5,
    }


def follow(answer: dict[str, list[str]], expected: Sequence[int], logits_SV: torch.Tensor) -> int:
    """How many tokens are the reference's, which must be all up to a near tie of its best two."""
    for step, (token, right, logits_V) in enumerate(
        zip(answer["tokens"], expected, logits_SV, strict=True)
    ):
        values, ids = logits_V.topk(2)
        if token != right:
            assert values[0] - values[1] < NEAR and token in ids.tolist(), f"step {step}"
            return step
        own = float.fromhex(answer["bits"][step].split()[0])
        assert abs(own - float(logits_V.log_softmax(0)[right])) < NEAR, f"step {step}"
    return len(expected)


class Ranks:
    """`num_ranks` ranks of tests/moe_serve/parallel/worker.py, started at their first job.

    Each has a line of its own: who waits for MPI meanwhile takes a tenth of a core.

    Args:
        environment: beside that of every test's ranks.
    """

    def __init__(
        self, num_ranks: int, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.num_ranks = num_ranks
        self._folder = folder
        self._environment = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._num_jobs = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[TextIO] = []

    def run(self, job: Job) -> Any:
        """The worker's answer."""
        self._num_jobs += 1
        file = self._folder / f"{self.num_ranks}-ranks-{self._num_jobs}.yaml"
        file.write_text(yaml.safe_dump(job["config"]))
        if self._process is None:
            self._start(file)
        for line in self._lines:
            line.write(json.dumps({**job, "config": str(file)}) + "\n")
            line.flush()
        answer = self._lines[0].readline()
        assert answer, f"the {self.num_ranks} ranks ended, see their stderr"
        return json.loads(answer)

    def dismiss(self) -> None:
        """No more jobs: the ranks end, while others may be told to as well."""
        for line in self._lines:
            line.close()

    def close(self) -> None:
        """Raises unless the ranks leave one another in peace."""
        if self._process is None:
            return
        launcher = psutil.Process(self._process.pid)
        family = [launcher, *launcher.children(recursive=True)]
        self.dismiss()
        try:
            assert self._process.wait(20) == 0
        finally:
            for process in family:
                if process.is_running():
                    process.kill()

    def _start(self, config: Path) -> None:
        path = str(config.with_suffix(".socket"))
        command = [sys.executable, "-W", "error", str(WORKER), str(config), path]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            self._process = subprocess.Popen(
                mpirun(self.num_ranks, *command) if self.num_ranks > 1 else command,
                env=ENVIRONMENT | self._environment,
                start_new_session=True,
            )
            self._lines = [self._accept(listener, self._process) for _ in range(self.num_ranks)]
        self._lines.sort(key=lambda line: int(line.readline()))

    def _accept(self, listener: socket.socket, process: "subprocess.Popen[bytes]") -> TextIO:
        listener.settimeout(0.5)
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the {self.num_ranks} ranks ended, see their stderr"
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(JOB_SECONDS)
                    return connection.makefile("rw")
        raise TimeoutError(f"the {self.num_ranks} ranks did not meet in {JOB_SECONDS} s")
