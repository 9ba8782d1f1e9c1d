"""Log-probabilities in OpenAI's two shapes."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moe_serve.edge.token_bytes import TokenBytes
from moe_serve.types import TokenEvent

# JSON has no infinity; OpenAI's own floor.
_LEAST = -9999.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of the answer.

    Attributes:
        offset: characters of the answer before this token's first.
        top: (token id, logprob), best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    offset: int


class LogprobQueue:
    """Holds entries back as long as their text is, so that both end at the same place."""

    def __init__(self) -> None:
        self._waiting: deque[TokenLogprob] = deque()

    def add(self, event: TokenEvent, offset: int) -> None:
        assert event.token_id is not None, "an event without a token has no log-probability"
        if event.logprob is not None:
            self._waiting.append(
                TokenLogprob(event.token_id, event.logprob, event.top_logprobs, offset)
            )

    def release(self, num_characters: int) -> tuple[TokenLogprob, ...]:
        """The entries whose text begins before this many characters of the answer."""
        released = []
        while self._waiting and self._waiting[0].offset < num_characters:
            released.append(self._waiting.popleft())
        return tuple(released)

    def release_all(self) -> tuple[TokenLogprob, ...]:
        released, self._waiting = tuple(self._waiting), deque()
        return released


def token_text(token: bytes) -> str:
    """The token as text; one that is no whole character as `bytes:` and its escaped bytes."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def chat_logprobs(
    entries: Sequence[TokenLogprob], token_bytes: TokenBytes, num_top: int
) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""

    def one(token_id: int, logprob: float) -> dict[str, Any]:
        token = token_bytes[token_id]
        return {
            "token": token_text(token),
            "logprob": max(logprob, _LEAST),
            "bytes": list(token),
        }

    content = [
        {
            **one(entry.token_id, entry.logprob),
            "top_logprobs": [one(*pair) for pair in entry.top[:num_top]],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    entries: Sequence[TokenLogprob], token_bytes: TokenBytes, num_top: int
) -> dict[str, Any]:
    """The `logprobs` of a plain completion's choice; the chosen token is always among the top."""

    def top(entry: TokenLogprob) -> dict[str, float]:
        pairs = (*entry.top[:num_top], (entry.token_id, entry.logprob))
        return {token_text(token_bytes[token]): max(logprob, _LEAST) for token, logprob in pairs}

    return {
        "text_offset": [entry.offset for entry in entries],
        "token_logprobs": [max(entry.logprob, _LEAST) for entry in entries],
        "tokens": [token_text(token_bytes[entry.token_id]) for entry in entries],
        "top_logprobs": [top(entry) for entry in entries],
    }
