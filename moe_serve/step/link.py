"""What the serving loop asks of its line to the front end."""

from collections.abc import Sequence
from typing import Protocol

from moe_serve.messages import Command, Report


class Link(Protocol):
    """A rank's line to the front end."""

    def receive(self) -> Sequence[Command]:
        """What has come, without waiting."""
        ...

    def wait(self, seconds: float, descriptors: Sequence[int]) -> None:
        """Sleep until something comes, or can be read from one of the descriptors."""
        ...

    def send(self, report: Report) -> bool:
        """Whether there is somebody to send to yet."""
        ...
