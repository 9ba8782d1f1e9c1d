"""The command line as a whole: help, exit codes, and a start without heavy imports."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from moe_placement.cli import main as main_module
from moe_placement.solver.constraints import InfeasibleError

GUIDE = Path(__file__).parents[3] / "docs/planning.md"
COMMANDS = ("solve", "simulate", "capacity", "validate", "calibrate")


@pytest.mark.parametrize("words", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_is_there(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main_module.main(words)
    assert caught.value.code == 0
    assert "usage: moe_plan" in capsys.readouterr().out


def test_a_start_imports_nothing_heavy_and_never_torch() -> None:
    script = (
        "import sys\n"
        "from moe_placement.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'rich', 'sklearn', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from moe_placement.cli import asked, outputs, simulated_plan\n"
        "from moe_placement.report import page, accuracy\n"
        "assert 'numpy' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the following arguments are required: COMMAND; see moe_plan --help"),
        (("solv",), "invalid choice: 'solv' (choose from"),
        (("solve",), "required: --model; see moe_plan solve --help"),
        (("solve", "--model", "x"), "one of the arguments --cluster --devices is required"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    refuse: Callable[..., str], words: tuple[str, ...], said: str
) -> None:
    assert said in refuse(*words)


def test_the_commands_of_the_guide_are_commands() -> None:
    text = GUIDE.read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^    (moe_plan .*)", text, re.M)
    assert len(commands) >= 4
    for command in commands:
        options = main_module._parser().parse_args(shlex.split(command)[1:])
        assert options.run is not None


def stand_in(error: Exception) -> argparse.Namespace:
    def run(options: argparse.Namespace) -> int:
        raise error

    return argparse.Namespace(run=run)


class Parser:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def parse_args(self, words: object) -> argparse.Namespace:
        return stand_in(self.error)


def test_what_cannot_be_had_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_module, "_parser", lambda: Parser(InfeasibleError("3 GiB\nshort")))
    assert main_module.main([]) == 1
    assert capsys.readouterr().err == "moe_plan: error: 3 GiB short\n"


def test_an_interrupt_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_module, "_parser", lambda: Parser(KeyboardInterrupt()))
    assert main_module.main([]) == 130
    assert capsys.readouterr().err == "moe_plan: interrupted\n"


def test_faults_of_the_program_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "_parser", lambda: Parser(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        main_module.main([])
