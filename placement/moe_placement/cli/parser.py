"""Command lines whose every error is one line."""

import argparse
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction["Parser"]


class UsageError(ValueError):
    """A command line that cannot be followed: names the option, the value and the fix."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")
