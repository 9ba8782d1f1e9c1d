"""A client of the phases benchmark: sends each request at its time, and notes when tokens come."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from moe_serve.bench.phases_load import Arrival
from moe_serve.bench.stream import stream
from moe_serve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes:
    ttft: seconds from the request to its first token.
    gaps: seconds between each two of its tokens.
    """

    kind: str
    ttft: float
    gaps: tuple[float, ...]

    @property
    def tpot(self) -> float:
        """Mean seconds of a token after the first."""
        return sum(self.gaps) / len(self.gaps) if self.gaps else 0.0


def drive(url: str, arrivals: Sequence[Arrival], seconds: float) -> list[Answer]:
    """All answers, in the order of the requests.

    Args:
        seconds: after which those that are still to come are given up.

    Raises:
        ConfigError: a request failed, or its answer has not as many tokens as were asked for.
    """
    stop = threading.Event()
    # One thread each: requests never wait for one another here.
    with ThreadPoolExecutor(len(arrivals)) as pool:
        begun = time.perf_counter()
        futures = [
            pool.submit(_ask, url, arrival, begun + arrival.at, stop) for arrival in arrivals
        ]
        try:
            return _gather(futures, begun + seconds)
        finally:
            stop.set()


def _gather(futures: "Sequence[Future[Answer]]", deadline: float) -> list[Answer]:
    try:
        return [future.result(max(0.0, deadline - time.perf_counter())) for future in futures]
    except (OSError, ValueError) as error:
        raise ConfigError(f"a request of the phases benchmark failed: {error!r}") from error


def _ask(url: str, arrival: Arrival, send_at: float, stop: threading.Event) -> Answer:
    if stop.wait(max(0.0, send_at - time.perf_counter())):
        raise InterruptedError("another request failed")
    answer = stream(url, arrival.prompt_ids, arrival.kind.output_tokens, stop.is_set)
    return Answer(arrival.kind.name, answer.ttft, answer.gaps)
