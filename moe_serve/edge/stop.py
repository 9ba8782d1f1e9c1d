"""Stop strings, found across token boundaries."""

from collections.abc import Sequence


def num_held(text: str, wanted: Sequence[str]) -> int:
    """Length of the longest end of `text` that may be the beginning of a wanted string."""
    return max((_overlap(text, string) for string in wanted), default=0)


def _overlap(text: str, string: str) -> int:
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0


class StopMatcher:
    """Cuts a text before the first stop string to be completed.

    Of several that end at the same character the longest counts. Text that may be the start of
    a stop string is held back until it is known not to be.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """The text that is certain now; after `stopped` there is no more."""
        if self.stopped:
            return ""
        if not self._strings:
            return text
        text = self._held + text
        start = self._find(text)
        if start is None:
            start = len(text) - num_held(text, self._strings)
            self._held = text[start:]
        return text[:start]

    def finish(self) -> str:
        """The text held back, once no more is to come."""
        held, self._held = self._held, ""
        return "" if self.stopped else held

    def _find(self, text: str) -> int | None:
        found = [(text.find(string), len(string)) for string in self._strings]
        ends = [(start + length, start) for start, length in found if start >= 0]
        self.stopped = bool(ends)
        return min(ends)[1] if ends else None
