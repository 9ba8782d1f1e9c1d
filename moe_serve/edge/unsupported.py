"""Fields that clients may send and this server does not have: refused, never ignored."""

from collections.abc import Mapping
from typing import Any

from moe_serve.edge.bodies import GenerationBody
from moe_serve.edge.encoder_bodies import EncoderBody
from moe_serve.errors import RequestError

# field -> values that ask for nothing; null, false, 0 and empty ones do so for every field.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": (),
    "tool_choice": ("none", "auto"),
    "functions": (),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "suffix": (),
    "echo": (),
    "prompt_logprobs": (),
    "min_tokens": (),
    "use_beam_search": (),
    "bad_words": (),
    "allowed_token_ids": (),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "continue_final_message": (),
}

# Of encoders: field -> values that ask for what is done anyway; any other is refused.
_UNSUPPORTED_OF_ENCODERS: Mapping[str, tuple[Any, ...]] = {
    "messages": (),
    "add_special_tokens": (True,),
    "normalize": (),
    "normalized": (),
    "use_activation": (True,),
    "activation": (True,),
    "softmax": (True,),
    "embed_dtype": ("float32",),
    "embedding_type": ("float",),
    "input_type": (),
    "task": (),
    "late_chunking": (False,),
    "truncate": (False,),
    "prompt_name": (),
    "instruction": (),
    "rank_fields": (["text"],),
    "max_chunks_per_doc": (),
    "max_tokens_per_doc": (),
}


def refuse_unsupported_encoding(body: EncoderBody) -> None:
    """Raise RequestError for the first field that would change the answer if it were obeyed."""
    extra = body.model_extra or {}
    for name, harmless in _UNSUPPORTED_OF_ENCODERS.items():
        value = extra.get(name)
        if value is not None and value not in harmless:
            raise RequestError(f"{name} is not supported by this server; leave it out", name)


def refuse_unsupported(body: GenerationBody) -> None:
    """Raise RequestError for the first field that would change the answer if it were obeyed."""
    extra = body.model_extra or {}
    for name, harmless in _UNSUPPORTED.items():
        value = extra.get(name)
        if value and value not in harmless:
            raise RequestError(f"{name} is not supported by this server; leave it out", name)
    _refuse_best_of(extra.get("best_of"), body.n or 1)


def _refuse_best_of(best_of: Any, num_choices: int) -> None:
    if best_of is not None and best_of != num_choices:
        raise RequestError(
            f"best_of {best_of!r} with n {num_choices} is not supported by this server; "
            "leave best_of out",
            "best_of",
        )
