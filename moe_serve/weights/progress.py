"""How far loading has come: a bar on a terminal, a log line now and then elsewhere."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from moe_serve.weights.checkpoint import Checkpoint

LAYER = re.compile(r"\.layers\.(\d+)\.")
EXPERT = re.compile(r"\.experts\.(\d+)\.")

_LINE_SECONDS = 2.0

logger = logging.getLogger(__name__)


def count_bytes_to_read(
    checkpoint: Checkpoint, local_experts: Mapping[int, Sequence[int]], num_layers: int
) -> int:
    """Bytes that a rank with whole attention will read, by the names in the file headers."""
    local = {layer: frozenset(experts) for layer, experts in local_experts.items()}

    def is_read(name: str) -> bool:
        layer, expert = LAYER.search(name), EXPERT.search(name)
        if layer is None:
            return True
        if int(layer[1]) >= num_layers:
            return False
        return expert is None or int(expert[1]) in local.get(int(layer[1]), frozenset())

    return sum(checkpoint.stored(name).num_bytes for name in checkpoint if is_read(name))


@contextmanager
def show_progress(
    total_bytes: int, visible: bool, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields what a WeightLoader tells its reads to.

    Args:
        visible: False shows nothing; one rank of many is enough.
        console: stderr by default.
    """
    console = console or Console(stderr=True)
    if not visible:
        yield lambda num_bytes: None
    elif console.is_terminal:
        with _make_bar(console) as bar:
            task = bar.add_task("loading weights", total=total_bytes)
            yield lambda num_bytes: bar.advance(task, num_bytes)
            bar.update(task, completed=total_bytes)
    else:
        yield TenthsLogger(total_bytes)


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class TenthsLogger:
    """Logs a line whenever another tenth of the bytes has been read, but not too often.

    Args:
        clock: seconds.
    """

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes = max(1, total_bytes)
        self._clock = clock
        self._last_line = clock()
        self._num_read = 0
        self._num_tenths = 0

    def __call__(self, num_bytes: int) -> None:
        self._num_read += num_bytes
        num_tenths = min(10, 10 * self._num_read // self._total_bytes)
        if num_tenths > self._num_tenths and self._clock() - self._last_line >= _LINE_SECONDS:
            self._num_tenths, self._last_line = num_tenths, self._clock()
            logger.info(
                "loading weights: %d %% of %.2f GiB", 10 * num_tenths, self._total_bytes / 2**30
            )
