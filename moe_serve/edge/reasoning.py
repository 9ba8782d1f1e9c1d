"""What a model thinks between `<think>` and `</think>`, apart from what it answers."""

from typing import Literal, NamedTuple

from moe_serve.edge.stop import num_held

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"


class SplitText(NamedTuple):
    reasoning: str = ""
    content: str = ""


class ReasoningSplitter:
    """Splits one answer, however it is cut into pieces.

    Only a tag at the very beginning opens the reasoning, and the first closing tag ends it; tags
    elsewhere are text. Line breaks right after either tag belong to neither side.

    Args:
        opened: the prompt already ends with the opening tag.
    """

    def __init__(self, opened: bool) -> None:
        self._opened = opened
        self._part: Literal["start", "reasoning", "content"] = "start"
        self._held = ""
        self._after_tag = opened

    def add(self, text: str) -> SplitText:
        text, self._held = self._held + text, ""
        if self._part == "start":
            text = self._begin(text)
        if self._part == "start":
            self._held = text
            return SplitText()
        return self._reason(text) if self._part == "reasoning" else self._answer(text)

    def finish(self) -> SplitText:
        """The text held back, once no more is to come."""
        held, self._held = self._held, ""
        if self._part == "reasoning" or (self._part == "start" and self._opened):
            return SplitText(reasoning=self._without_breaks(held))
        return SplitText(content=self._without_breaks(held))

    def _begin(self, text: str) -> str:
        beginning = text.lstrip()
        if beginning.startswith(OPEN_TAG):
            self._part, self._after_tag = "reasoning", True
            return beginning.removeprefix(OPEN_TAG)
        if not OPEN_TAG.startswith(beginning):
            self._part = "reasoning" if self._opened else "content"
        return text

    def _reason(self, text: str) -> SplitText:
        reasoning, tag, content = text.partition(CLOSE_TAG)
        if not tag:
            end = len(text) - num_held(text, [CLOSE_TAG])
            self._held = text[end:]
            return SplitText(reasoning=self._without_breaks(text[:end]))
        reasoning = self._without_breaks(reasoning)
        self._part, self._after_tag = "content", True
        return SplitText(reasoning, self._without_breaks(content))

    def _answer(self, text: str) -> SplitText:
        return SplitText(content=self._without_breaks(text))

    def _without_breaks(self, text: str) -> str:
        if self._after_tag:
            text = text.lstrip("\n")
            self._after_tag = not text
        return text
