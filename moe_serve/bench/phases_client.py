"""A client of the phases benchmark: sends each request at its time, and notes when tokens come."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from urllib.request import Request, urlopen

from moe_serve.bench.phases_load import Arrival
from moe_serve.demo_config import END_ID
from moe_serve.errors import ConfigError

_SILENCE_SECONDS = 60.0
_DATA = b"data: "


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
    num_tokens = arrival.kind.output_tokens
    body = {
        "prompt": arrival.prompt_ids,
        "max_tokens": num_tokens,
        "temperature": 0,
        # The end is the one token that has no text.
        "logit_bias": {str(END_ID): -100},
        "stream": True,
    }
    request = Request(f"{url}/v1/completions", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    sent = time.perf_counter()
    with urlopen(request, timeout=_SILENCE_SECONDS) as stream:
        times = list(token_times(stream, stop.is_set))
    if len(times) != num_tokens:
        raise ValueError(f"{len(times)} tokens came of {num_tokens} that were asked for")
    gaps = (later - earlier for earlier, later in pairwise(times))
    return Answer(arrival.kind.name, times[0] - sent, tuple(gaps))


def token_times(lines: Iterator[bytes], is_over: Callable[[], bool]) -> Iterator[float]:
    """When each chunk with text came; the demo model says whole words, so one for each token.

    Raises:
        ValueError: the server says what went wrong.
        InterruptedError: the answer is no longer wanted.
    """
    for line in lines:
        now = time.perf_counter()
        if is_over():
            raise InterruptedError("another request failed")
        if not line.startswith(_DATA) or line.strip() == b"data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix(_DATA))
        if "error" in chunk:
            raise ValueError(chunk["error"])
        if any(choice["text"] for choice in chunk["choices"]):
            yield now
