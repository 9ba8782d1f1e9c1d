"""Commands run in this process: exit code, and what they print."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from moe_placement.cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*words: object) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run_command


@pytest.fixture
def refuse(run: Run) -> Callable[..., str]:
    """The one line of a command that is wrong."""

    def refused(*words: object) -> str:
        done = run(*words)
        assert (done.code, done.out) == (2, "")
        (line,) = done.err.splitlines()
        assert line.startswith("moe_plan: error: ")
        return line.removeprefix("moe_plan: error: ")

    return refused
