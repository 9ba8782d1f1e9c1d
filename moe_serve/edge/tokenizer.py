"""A checkpoint's tokenizer and chat template, without torch.

`AutoTokenizer` imports torch: 3 seconds and 180 MiB more than the class used here, which reads
`tokenizer.json` as it stands.
"""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from moe_serve.edge.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from moe_serve.edge.input_tokens import InputTokenizer
from moe_serve.edge.reasoning import CLOSE_TAG, OPEN_TAG, ReasoningSplitter
from moe_serve.edge.token_bytes import TokenBytes, decoder_form
from moe_serve.edge.tokenizer_file import tokenizer_file
from moe_serve.errors import CheckpointError, RequestError

# Shorter texts take less time than handing them to a thread.
_THREAD_CHARACTERS = 4096
_TYPES = "token_type_ids"


class ModelTokenizer:
    """Text to ids and back for one model.

    Args:
        path: checkpoint directory with a `tokenizer.json`.

    Raises:
        CheckpointError: there is no tokenizer that can be read.
    """

    def __init__(self, path: Path) -> None:
        self._template = _load(path)
        self._tokenizer: Tokenizer = self._template.backend_tokenizer
        # A checkpoint's own limits would cut prompts silently.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.token_bytes = TokenBytes(self._tokenizer)
        # Only the classes of single models know better than tokenizer.json, where no file says it.
        named = self._template.init_kwargs.get("model_input_names", [_TYPES])
        self.inputs = InputTokenizer(
            self._tokenizer,
            has_types=_TYPES in named,
            cuts_left=self._template.truncation_side == "left",
        )
        self._form = decoder_form(self._tokenizer)
        added = self._tokenizer.get_added_tokens_decoder()
        special = {token_id for token_id, token in added.items() if token.special}
        tags = {self._tokenizer.token_to_id(tag) for tag in (OPEN_TAG, CLOSE_TAG)}
        self._skipped = frozenset(special - tags)
        self.thinks = self._tokenizer.token_to_id(OPEN_TAG) is not None or OPEN_TAG in str(
            self._template.chat_template
        )

    def chat_prompt(
        self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any] | None = None
    ) -> str:
        """The chat template's text, up to where the answer begins.

        Args:
            options: further variables of the template, such as `enable_thinking`.

        Raises:
            RequestError: the checkpoint has no template, or its template refuses the messages.
        """
        if not self._template.chat_template:
            raise RequestError("this model has no chat template; use /v1/completions", "messages")
        render = self._template.apply_chat_template
        if taken := sorted(set(options or ()) & set(inspect.signature(render).parameters)):
            raise RequestError(f"{taken[0]} cannot be set by a request", "chat_template_kwargs")
        try:
            return str(
                render(
                    list(messages), tokenize=False, add_generation_prompt=True, **(options or {})
                )
            )
        except Exception as error:
            # Templates are programs of the checkpoint: they can raise anything.
            raise RequestError(f"the chat template refused: {error}", "messages") from error

    async def encode(self, text: str, add_special_tokens: bool) -> tuple[int, ...]:
        if len(text) < _THREAD_CHARACTERS:
            return self.encode_now(text, add_special_tokens)
        return await asyncio.to_thread(self.encode_now, text, add_special_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, special tokens by name."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def detokenizer(self) -> Detokenizer:
        if self._form.joins_bytes:
            spaces = self._form.num_front_spaces
            return ByteDetokenizer(self.token_bytes, self._skipped, spaces)
        return WindowDetokenizer(self._tokenizer, self._skipped)

    def reasoning_splitter(self, prompt: str) -> ReasoningSplitter | None:
        """None for a model that has no thinking tag."""
        if not self.thinks:
            return None
        return ReasoningSplitter(opened=prompt.rstrip().endswith(OPEN_TAG))

    def encode_now(self, text: str, add_special_tokens: bool) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)


def _load(path: Path) -> Any:
    tokenizer_file(path)
    try:
        return PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)
    except Exception as error:
        # The tokenizers library raises bare Exception for a file it cannot read.
        raise CheckpointError(f"cannot read the tokenizer in {path}: {error}") from error
