"""One streamed completion over HTTP, as a benchmark's client sees it: when its tokens come."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.request import Request, urlopen

from moe_serve.demo_config import END_ID

_SILENCE_SECONDS = 60.0
_DATA = b"data: "


@dataclass(frozen=True, slots=True)
class Stream:
    """Attributes:
    sent, times: of the request, and of each of its tokens; seconds of `time.perf_counter`.
    """

    sent: float
    times: tuple[float, ...]

    @property
    def ttft(self) -> float:
        """Seconds from the request to its first token."""
        return self.times[0] - self.sent

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between each two of its tokens."""
        return tuple(later - earlier for earlier, later in pairwise(self.times))


def stream(
    url: str,
    prompt_ids: Sequence[int],
    num_tokens: int,
    is_over: Callable[[], bool],
    only: Sequence[int] = (),
) -> Stream:
    """Ask a server of the demo's vocabulary for so many tokens, greedily.

    Args:
        only: tokens of which the answer is made, words each; empty allows all.

    Raises:
        OSError: the server does not answer.
        ValueError: it says what went wrong, or sent another number of tokens.
        InterruptedError: the answer is no longer wanted.
    """
    body = {
        "prompt": list(prompt_ids),
        "max_tokens": num_tokens,
        "temperature": 0,
        # The end is the one token that has no text.
        "logit_bias": {str(END_ID): -100} | {str(token): 100 for token in only},
        "stream": True,
    }
    request = Request(f"{url}/v1/completions", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    sent = time.perf_counter()
    with urlopen(request, timeout=_SILENCE_SECONDS) as lines:
        times = tuple(token_times(lines, is_over))
    if len(times) != num_tokens:
        raise ValueError(f"{len(times)} tokens came of {num_tokens} that were asked for")
    return Stream(sent, times)


def token_times(lines: Iterable[bytes], is_over: Callable[[], bool]) -> Iterator[float]:
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
