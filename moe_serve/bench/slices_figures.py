"""What comes of the timelines of the slices benchmark: shares of windows, gaps, answers in time.

Shapes: S steps, P pauses, W windows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moe_serve.bench.slices_job import Answer, RankLog

Floats = NDArray[np.float64]
# Windows begin so often in the length of one that their largest error is found.
_WINDOWS_PER_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each tenant of a rank had the device.

    Attributes:
        tenant_S, begin_S, end_S: of turns, in order; a turn is a step and what the loop does until
            the next step or pause begins.
        step_S: seconds of the step alone.
        first, last: the time that counts.
    """

    tenant_S: NDArray[np.int64]
    begin_S: Floats
    end_S: Floats
    step_S: Floats
    first: float
    last: float

    @staticmethod
    def of(log: RankLog) -> "Timeline":
        begin_S, step_end_S = np.asarray(log.step_begins), np.asarray(log.step_ends)
        end = max(log.last, step_end_S.max(initial=0.0))
        marks = np.sort(np.concatenate([begin_S, log.pause_begins, [end]]))
        return Timeline(
            tenant_S=np.asarray(log.step_tenants, np.int64),
            begin_S=begin_S,
            end_S=marks[np.searchsorted(marks, begin_S, side="right")],
            step_S=step_end_S - begin_S,
            first=log.first,
            last=log.last,
        )

    def percent(self, tenant: int) -> float:
        """Of all the time that counts."""
        used = self._used(tenant, np.array([self.first, self.last]))
        return float(100 * (used[1] - used[0]) / (self.last - self.first))

    def step_percent(self, tenant: int) -> float:
        """Of the time in steps, those that began in the time that counts."""
        sums = {each: self.step_seconds(each).sum() for each in set(self.tenant_S.tolist())}
        return float(100 * sums.get(tenant, 0.0) / sum(sums.values()))

    def step_seconds(self, tenant: int) -> Floats:
        """Of its steps that began in the time that counts."""
        counts_S = (self.begin_S >= self.first) & (self.begin_S < self.last)
        seconds_S: Floats = self.step_S[counts_S & (self.tenant_S == tenant)]
        return seconds_S

    def until(self, last: float) -> "Timeline":
        """The same where another time is the end of what counts."""
        return replace(self, last=last)

    def busy(self) -> float:
        """Share of the time that counts in which a step was computed."""
        ends_S = np.clip(self.begin_S + self.step_S, self.first, self.last)
        begins_S = np.clip(self.begin_S, self.first, self.last)
        return float((ends_S - begins_S).sum() / (self.last - self.first))

    def window_percents(self, tenant: int, seconds: float) -> Floats:
        """percent_W of every window of such a length; windows overlap."""
        spare = self.last - self.first - seconds
        assert spare >= 0, f"windows of {seconds} s in {self.last - self.first} s"
        count = 1 + int(spare / seconds * _WINDOWS_PER_LENGTH + 1e-9)
        begin_W = self.first + np.arange(count) * seconds / _WINDOWS_PER_LENGTH
        return 100 * (self._used(tenant, begin_W + seconds) - self._used(tenant, begin_W)) / seconds

    def in_longest_turns(self, error: "ShareError", seconds: float) -> float:
        """The largest error over windows of such a length, in the longest turn of the time that
        counts: whose turn it is can only be decided between turns."""
        counts_S = (self.end_S > self.first) & (self.begin_S < self.last)
        longest = float((self.end_S - self.begin_S)[counts_S].max())
        return error.largest / 100 * seconds / longest

    def _used(self, tenant: int, time_W: Floats) -> Floats:
        """Seconds that the tenant has had until then."""
        own_S = self.tenant_S == tenant
        begin, length = self.begin_S[own_S], (self.end_S - self.begin_S)[own_S]
        before = np.concatenate([[0.0], np.cumsum(length)])
        num_begun_W = np.searchsorted(begin, time_W, side="right")
        # One of no length stands before the first, for times at which none has begun.
        begin, length = np.append(-np.inf, begin), np.append(0.0, length)
        inside_W = np.minimum(time_W - begin[num_begun_W], length[num_begun_W])
        used_W: Floats = before[np.maximum(num_begun_W - 1, 0)] + inside_W
        return used_W


@dataclass(frozen=True, slots=True)
class ShareError:
    """Points of percent between what was asked and what was had, over windows of one length.

    Attributes:
        most: that 99 of 100 windows keep to.
    """

    mean: float
    most: float
    largest: float

    @staticmethod
    def of(percent_W: Floats, asked: float) -> "ShareError":
        error_W = np.abs(percent_W - asked)
        most = float(np.quantile(error_W, 0.99))
        return ShareError(float(error_W.mean()), most, float(error_W.max()))


def gaps(answers: Iterable[Answer], first: float, last: float) -> Floats:
    """Seconds between the tokens of each answer, of those that came in a time."""
    found = [_within(np.asarray(answer.times), first, last) for answer in answers]
    return np.concatenate([np.diff(times) for times in found]) if found else np.zeros(0)


def _within(times: Floats, first: float, last: float) -> Floats:
    return times[(times >= first) & (times < last)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Seconds until the first token, and to each further one in the mean."""

    first_token: float
    token: float

    def is_met(self, answer: Answer) -> bool:
        if not answer.is_done or answer.times[0] - answer.asked > self.first_token:
            return False
        return token_seconds(answer) <= self.token


def token_seconds(answer: Answer) -> float:
    """Of each token after the first, in the mean."""
    times = answer.times
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def tokens_in_time(answers: Iterable[Answer], objective: Objective) -> int:
    """Tokens of the answers that met the objective."""
    return sum(len(answer.times) for answer in answers if objective.is_met(answer))
