"""One choice of an answer: from the engine's events to text for the client."""

from dataclasses import dataclass
from typing import Literal

from moe_serve.edge.detokenizer import Detokenizer
from moe_serve.edge.errors import raise_failure
from moe_serve.edge.logprobs import LogprobQueue, TokenLogprob
from moe_serve.edge.reasoning import ReasoningSplitter, SplitText
from moe_serve.edge.stop import StopMatcher
from moe_serve.types import TokenEvent

ChoiceEnd = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event adds to one choice; the last one has a finish reason."""

    index: int
    content: str = ""
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: ChoiceEnd | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.content or self.reasoning or self.logprobs or self.finish_reason)


class Choice:
    """Detokenizes, cuts at stop strings, parts reasoning from content, and counts tokens."""

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        stops: StopMatcher,
        splitter: ReasoningSplitter | None = None,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.finish_reason: ChoiceEnd | None = None
        self._detokenizer = detokenizer
        self._stops = stops
        self._splitter = splitter
        self._logprobs = LogprobQueue()
        self._num_decoded = 0
        self._num_released = 0

    @property
    def stopped_early(self) -> bool:
        """A stop string was found; the engine does not know."""
        return self._stops.stopped

    def add(self, event: TokenEvent) -> Delta:
        """The event's share of the answer.

        Raises:
            RequestError: the rank refused the sequence, for good or (OverloadedError) for now.
            EngineDeadError: the engine lost or dropped the sequence.
        """
        raise_failure(event)
        text = self._stops.add(self._decode(event))
        if self.stopped_early:
            self.finish_reason = "stop"
        elif event.finish_reason is not None:
            self.finish_reason = "stop" if event.finish_reason == "stop" else "length"
            text += self._stops.add(self._detokenizer.finish()) + self._stops.finish()
        return self._delta(text)

    def _decode(self, event: TokenEvent) -> str:
        if event.token_id is None:
            return ""
        self.num_tokens += 1
        # The token that ends a sequence is counted, but it is no part of the answer.
        if event.finish_reason == "stop":
            return ""
        self._logprobs.add(event, self._num_decoded)
        text = self._detokenizer.add(event.token_id)
        self._num_decoded += len(text)
        return text

    def _delta(self, text: str) -> Delta:
        self._num_released += len(text)
        whole = self.finish_reason is not None and not self.stopped_early
        logprobs = self._logprobs
        entries = logprobs.release_all() if whole else logprobs.release(self._num_released)
        split = self._split(text)
        return Delta(self.index, split.content, split.reasoning, entries, self.finish_reason)

    def _split(self, text: str) -> SplitText:
        if self._splitter is None:
            return SplitText(content=text)
        split = self._splitter.add(text)
        if self.finish_reason is None:
            return split
        rest = self._splitter.finish()
        return SplitText(split.reasoning + rest.reasoning, split.content + rest.content)
