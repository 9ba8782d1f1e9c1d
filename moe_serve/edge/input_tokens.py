"""Texts and pairs of texts as the tokens that an encoder is given."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from moe_serve.errors import RequestError

# Shorter inputs take less time than handing them to a thread.
_THREAD_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """Attributes:
    second_start: index at which the second text of a pair begins, where the tokenizer tells the
        two apart.
    """

    token_ids: tuple[int, ...]
    second_start: int | None = None


class InputTokenizer:
    """Adds the special tokens of an input, and keeps them where it cuts.

    Args:
        has_types: the tokenizer marks the second text of a pair.
        cuts_left: a text that is too long loses its beginning rather than its end.
    """

    def __init__(self, tokenizer: Tokenizer, has_types: bool, cuts_left: bool) -> None:
        self._tokenizer = tokenizer
        self._has_types = has_types
        self._direction = "left" if cuts_left else "right"

    async def tokenize(
        self, inputs: Sequence[str | tuple[str, str]], most: int | None
    ) -> list[EncoderInput]:
        """Every text, or pair of texts, as tokens.

        Args:
            most: longer inputs are cut to so many tokens, of a pair always the longer text.

        Raises:
            RequestError: the special tokens alone are more.
        """
        pairs = [(each, None) if isinstance(each, str) else each for each in inputs]

        def all_of_them() -> list[EncoderInput]:
            return [self._tokenize(first, second, most) for first, second in pairs]

        if sum(len(first) + len(second or "") for first, second in pairs) < _THREAD_CHARACTERS:
            return all_of_them()
        return await asyncio.to_thread(all_of_them)

    def cut(self, token_ids: Sequence[int], most: int | None) -> EncoderInput:
        """Tokens that the client has made."""
        if most is not None and len(token_ids) > most:
            token_ids = token_ids[-most:] if self._direction == "left" else token_ids[:most]
        return EncoderInput(tuple(token_ids))

    def _tokenize(self, first: str, second: str | None, most: int | None) -> EncoderInput:
        encoding = self._tokenizer.encode(first, second)
        if most is not None and len(encoding) > most:
            encoding = self._cut(first, second, most)
        types = encoding.type_ids
        is_marked = self._has_types and 1 in types
        return EncoderInput(tuple(encoding.ids), types.index(1) if is_marked else None)

    def _cut(self, first: str, second: str | None, most: int) -> Encoding:
        room = self._room(1 if second is None else 2, most)
        head = self._tokenizer.encode(first, add_special_tokens=False)
        if second is None:
            head.truncate(room, direction=self._direction)
            return self._tokenizer.post_process(head)
        tail = self._tokenizer.encode(second, add_special_tokens=False)
        lengths = share_room(len(head), len(tail), room)
        for part, length in zip((head, tail), lengths, strict=True):
            part.truncate(length, direction=self._direction)
        return self._tokenizer.post_process(head, tail)

    def _room(self, num_texts: int, most: int) -> int:
        """Tokens that the special ones leave; at least one for each text."""
        num_special = self._tokenizer.num_special_tokens_to_add(num_texts == 2)
        if most < num_special + num_texts:
            raise RequestError(
                f"truncate_prompt_tokens {most} leaves no room beside the {num_special} special "
                f"tokens of this model; raise it to {num_special + num_texts} or more",
                "truncate_prompt_tokens",
            )
        return int(most - num_special)


def share_room(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of the two texts of a pair once both fit: tokens are taken from the longer one."""
    if min(first, second) > room // 2:
        # Of an odd number the longer one has one more.
        shorter, longer = room // 2, room - room // 2
        return (longer, shorter) if first > second else (shorter, longer)
    if first < second:
        return first, min(second, room - first)
    return min(first, room - second), second
