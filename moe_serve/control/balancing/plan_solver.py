"""The expert solver in a process of its own, so that requests do not wait while it thinks.

It reads one JSON value a line on standard input, first the ServedDeployment, then one LoadQuestion
after the other, and answers each with a line; it ends with its input.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import BinaryIO

import msgspec

from moe_serve.control.balancing.balance import LoadQuestion, Rearrangement, ServedDeployment
from moe_serve.errors import EngineDeadError

_LIMIT_BYTES = 1 << 28
_DEADLINE_SECONDS = 300.0
# Whoever serves comes first.
_NICENESS = 10


class PlanSolver:
    """The front end's end; the process starts at the first question."""

    def __init__(self, served: ServedDeployment) -> None:
        self._served = served
        self._process: Process | None = None

    async def ask(self, question: LoadQuestion) -> Rearrangement:
        """
        Raises:
            EngineDeadError: it has ended, or does not answer in time.
        """
        if self._process is None:
            command = (sys.executable, "-m", "moe_serve.control.balancing.plan_solver")
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, limit=_LIMIT_BYTES
            )
            await self._write(self._served)
        await self._write(question)
        try:
            line = await asyncio.wait_for(self._read(), _DEADLINE_SECONDS)
        except TimeoutError:
            raise EngineDeadError("the solver of plans does not answer") from None
        if not line:
            raise EngineDeadError("the solver of plans has ended")
        return msgspec.json.decode(line, type=Rearrangement)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _write(self, message: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            await self._process.stdin.drain()

    async def _read(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        return await self._process.stdout.readline()


def answer_all(questions: BinaryIO, answers: BinaryIO) -> None:
    """Until there are no more questions."""
    from moe_serve.control.balancing.rearrange import rearrange
    from moe_serve.control.planning.deployment import read_spec
    from moe_serve.control.planning.hardware import pool_hardware
    from moe_serve.control.planning.model_json import read_model_json

    served = msgspec.json.decode(questions.readline(), type=ServedDeployment)
    spec = read_spec(read_model_json(served.config.models[0]))
    hardware = pool_hardware(served.config)
    for line in questions:
        question = msgspec.json.decode(line, type=LoadQuestion)
        answer = rearrange(served, spec, hardware, question)
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


if __name__ == "__main__":
    os.nice(_NICENESS)
    answer_all(sys.stdin.buffer, sys.stdout.buffer)
