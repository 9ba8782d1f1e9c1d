"""What a step takes, learned from steps that were timed, so that prompts can be cut to fit a time.

Seconds are a sum of non-negative parts: of the step itself, of each sequence that decodes, of each
prompt token, of each token whose keys and values are read, and of each that a prompt token attends
to. They are fitted by weighted least squares that forgets (Haykin, Adaptive Filter Theory,
chapter 10); a part that comes out negative is left out.
"""

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from moe_serve.types import Batch, Chunk

_MEMORY = 0.93
# How hard each part is held where it was. Where steps were too alike to tell parts apart, what was
# learned before stays; and what was never told apart is put down to those that are held least.
_HOLDS = (0.01, 0.1, 0.01, 0.01, 1.0)
_NUM_PARTS = len(_HOLDS)
_FIRST_TOKENS = 16
# To learn takes a tenth of a millisecond, and steps that only decode are much alike: of many, one
# in five tells enough.
_LONGEST_PAUSE = 4
# A step's own cost, or the reading of a prompt's past, may be so long that a bound leaves little.
# Tokens then take this share of it all the same: one token at a time would cost far more.
_LEAST_SHARE = 0.5


class StepWork(NamedTuple):
    """Attributes:
    context: tokens of all its sequences, up to the last one computed.
    attended: tokens that each prompt token attends to, itself among them, added up.
    """

    num_decoding: int = 0
    num_prompt_tokens: int = 0
    context: int = 0
    attended: int = 0

    @staticmethod
    def of(batch: Batch) -> "StepWork":
        """A prompt's last chunk counts as decoding where it has one token."""
        prompts = [chunk for chunk in batch.chunks if len(chunk.token_ids) > 1 or not chunk.samples]
        num_decoding = len(batch.chunks) - len(prompts)
        num_tokens = batch.num_tokens
        return StepWork(
            num_decoding,
            num_tokens - num_decoding,
            num_tokens + sum([chunk.start for chunk in batch.chunks]),
            attended_by(prompts),
        )

    @property
    def parts(self) -> tuple[int, ...]:
        return 1, *self


def attended_by(chunks: Iterable[Chunk]) -> int:
    """Tokens that each token attends to, itself among them, added up."""
    lengths = [(chunk.start, len(chunk.token_ids)) for chunk in chunks]
    return sum(start * length + length * (length + 1) // 2 for start, length in lengths)


class StepCost:
    """Careful before it knows: prompts begin with few tokens, and get at most twice as many as
    were timed of late."""

    def __init__(self) -> None:
        self._seconds = [0.0] * _NUM_PARTS
        # Apart, so that long decoding does not make it forget what prompts take.
        self._decoding, self._prompts = _Evidence(), _Evidence()
        self._max_prompt_tokens = _FIRST_TOKENS
        self._leans_up = True
        self._num_decoding_steps = self._pause = 0

    @property
    def knows_decoding(self) -> bool:
        """Whether so many steps that only decode were timed that it wants few more."""
        return self._num_decoding_steps >= 4 * _LONGEST_PAUSE

    def wants(self, batch: Batch) -> bool:
        """Whether to observe this step, asked of each that was bound: of those that only decode
        the first ones, and then fewer and fewer."""
        if batch.num_tokens > len(batch.chunks):
            return True
        self._pause -= 1
        if self._pause >= 0 or not batch.chunks:
            return False
        self._num_decoding_steps += 1
        self._pause = min(self._num_decoding_steps // 4, _LONGEST_PAUSE)
        return True

    def expected(self, work: StepWork) -> float:
        """Seconds; 0 before anything was timed."""
        return sum([each * part for each, part in zip(self._seconds, work.parts, strict=True)])

    def observe(self, work: StepWork, seconds: float) -> None:
        """Learn from a step that took so long: above 0."""
        # Errors count by their share of the step. Of two steps that should have taken as long the
        # shorter one counts more: what disturbs a step makes it longer.
        weight = 1.0 / (seconds * max(self.expected(work), seconds / 4))
        evidence = self._decoding
        if num_tokens := work.num_prompt_tokens:
            evidence, kept = self._prompts, int(0.9 * self._max_prompt_tokens)
            self._max_prompt_tokens = max(_FIRST_TOKENS, kept, 2 * num_tokens)
        evidence.add(work.parts, seconds, weight)
        self._leans_up = not self._leans_up
        self._fit()

    def tokens_within(self, seconds: float, decoding: StepWork, prompt_start: int | None) -> int:
        """How many tokens a step may have to take so long: those that decode, then prompts.

        Args:
            decoding: all sequences that could decode.
            prompt_start: tokens that lie before the part of a prompt that is next; None where
                there is no prompt.

        Returns:
            At least 1; fewer than could decode where not even they fit.
        """
        step, _, prompt_token, read, attended = self._seconds
        left, needed = seconds - step, self.expected(decoding) - step
        if needed > max(left, _LEAST_SHARE * step):
            fitting = max(left, _LEAST_SHARE * step) / needed
            return max(1, int(decoding.num_decoding * fitting))
        if prompt_start is None:
            return max(1, decoding.num_decoding)
        reading = read * prompt_start
        left = max(left - needed - reading, _LEAST_SHARE * max(step - needed, reading))
        # The root of: first * tokens + attended / 2 * tokens ** 2 = left.
        first = prompt_token + read + attended * prompt_start
        divisor = first + sqrt(first * first + 2 * attended * left)
        num_tokens: float = self._max_prompt_tokens
        if divisor > 0:
            num_tokens = min(num_tokens, 2 * left / divisor)
        # Steps that are all alike would not tell what tokens cost.
        num_tokens = 1.1 * num_tokens + 1 if self._leans_up else 0.9 * num_tokens
        return max(1, decoding.num_decoding + int(min(num_tokens, self._max_prompt_tokens)))

    def _fit(self) -> None:
        rows = [
            [first + second for first, second in zip(*pair, strict=True)]
            for pair in zip(self._decoding.rows, self._prompts.rows, strict=True)
        ]
        for part, (row, hold) in enumerate(zip(rows, _HOLDS, strict=True)):
            row[-1] += hold * row[part] * self._seconds[part]
            row[part] += hold * row[part]
        parts = [part for part, row in enumerate(rows) if row[part] > 0]
        found: list[float] = []
        while parts:
            found = _solve([[rows[part][other] for other in (*parts, -1)] for part in parts])
            lowest = min(found)
            if lowest >= 0:
                break
            del parts[found.index(lowest)]
        by_part = dict(zip(parts, found, strict=True))
        self._seconds = [by_part.get(part, 0.0) for part in range(_NUM_PARTS)]


class _Evidence:
    """Normal equations of the steps seen, the latest ones weighing most.

    Attributes:
        rows: for each part its products with all parts, and last with the seconds.
    """

    def __init__(self) -> None:
        self.rows = [[0.0] * (_NUM_PARTS + 1) for _ in range(_NUM_PARTS)]

    def add(self, parts: tuple[int, ...], seconds: float, weight: float) -> None:
        values = (*parts, seconds)
        self.rows = [
            [
                _MEMORY * product + weight * part * value
                for product, value in zip(row, values, strict=True)
            ]
            for row, part in zip(self.rows, parts, strict=True)
        ]


def _solve(rows: list[list[float]]) -> list[float]:
    """Normal equations, the right side last, by elimination."""
    size = len(rows)
    for index, pivot in enumerate(rows):
        for row in rows[index + 1 :]:
            factor = row[index] / pivot[index]
            for column in range(index, size + 1):
                row[column] -= factor * pivot[column]
    found = [0.0] * size
    for index in reversed(range(size)):
        row = rows[index]
        known = sum([row[other] * found[other] for other in range(index + 1, size)])
        found[index] = (row[size] - known) / row[index]
    return found
