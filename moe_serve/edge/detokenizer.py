"""Token ids to text, one at a time, without ever cutting a character."""

import codecs
from typing import Protocol

from tokenizers import Tokenizer

from moe_serve.edge.token_bytes import TokenBytes

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# No unfinished character has so many bytes: it is not going to be finished.
_HOPELESS = 4 * _REPLACEMENT


class Detokenizer(Protocol):
    """One sequence's text; what `add` and `finish` return, joined, is the decoded whole."""

    def add(self, token_id: int) -> str:
        """The text that this token completes; empty while it ends inside a character."""
        ...

    def finish(self) -> str:
        """What an unfinished last character leaves: one U+FFFD, or nothing."""
        ...


class ByteDetokenizer:
    """For tokenizers whose text is their tokens' bytes, joined.

    The same as decoding all ids at once, but for one thing: tokenizers that spell rare
    characters as byte tokens give up a whole run of those for one wrong byte; here the run's
    right characters have been shown by then.

    Args:
        skipped: ids that have no text, the special tokens.
        num_front_spaces: how many spaces are cut from the front of the text.
    """

    def __init__(
        self, token_bytes: TokenBytes, skipped: frozenset[int], num_front_spaces: int = 0
    ) -> None:
        self._token_bytes = token_bytes
        self._skipped = skipped
        self._num_front_spaces = num_front_spaces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        text = self._decoder.decode(self._token_bytes[token_id])
        return self._cut_front(text) if self._num_front_spaces else text

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)

    def _cut_front(self, text: str) -> str:
        while self._num_front_spaces and text:
            if not text.startswith(" "):
                self._num_front_spaces = 0
                break
            text = text[1:]
            self._num_front_spaces -= 1
        return text


class WindowDetokenizer:
    """For every other decoder: decodes a short window twice, with and without its newest tokens.

    The method is that of Hugging Face's text-generation-inference.
    """

    def __init__(self, tokenizer: Tokenizer, skipped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._shown: list[int] = []
        self._held: list[int] = []

    def add(self, token_id: int) -> str:
        if token_id in self._skipped or self._tokenizer.id_to_token(token_id) is None:
            return ""
        self._held.append(token_id)
        text = self._new_text()
        if not text or (text.endswith(_REPLACEMENT) and not text.endswith(_HOPELESS)):
            return ""
        self._shown, self._held = self._held, []
        return text

    def finish(self) -> str:
        return self._new_text()

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._shown, False)
        return str(self._tokenizer.decode(self._shown + self._held, False)[len(before) :])
