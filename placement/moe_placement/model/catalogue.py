"""Models by name: those shipped, their Hugging Face names, and config.json files."""

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec


class UnknownModelError(ValueError):
    """A name that is neither a shipped model nor a file."""


# Models of the same shape as one that is shipped.
_SAME_SHAPE: Mapping[str, str] = MappingProxyType(
    {
        "deepseek_r1": "deepseek_v3",
        "deepseek_v3_1": "deepseek_v3",
        "deepseek_v3_1_terminus": "deepseek_v3",
        "deepseek_v3_2_exp": "deepseek_v3_2",
        "deepseek_v3_2_speciale": "deepseek_v3_2",
        "glm_4_6": "glm_4_5",
        "glm_5_1": "glm_5",
        "glm_5_3": "glm_5_2",
        "kimi_k2_6": "kimi_k2_5",
        "kimi_k2_7_code": "kimi_k2_5",
        "kimi_k2_instruct_0905": "kimi_k2",
        "kimi_k2_thinking": "kimi_k2",
        "minimax_m2": "minimax_m2_5",
        "minimax_m2_1": "minimax_m2_5",
        "minimax_m2_7": "minimax_m2_5",
        "qwen3_235b_a22b_instruct_2507": "qwen3_235b_a22b",
        "qwen3_235b_a22b_thinking_2507": "qwen3_235b_a22b",
        "qwen3_30b_a3b_instruct_2507": "qwen3_30b_a3b",
        "qwen3_30b_a3b_thinking_2507": "qwen3_30b_a3b",
    }
)
# Their context, where it is not that of the shipped one.
_CONTEXTS: Mapping[str, int] = MappingProxyType(
    {
        "glm_4_6": 202752,
        "kimi_k2_instruct_0905": 262144,
        "kimi_k2_thinking": 262144,
        "minimax_m2_7": 204800,
        "qwen3_235b_a22b_instruct_2507": 262144,
        "qwen3_235b_a22b_thinking_2507": 262144,
        "qwen3_30b_a3b_instruct_2507": 262144,
        "qwen3_30b_a3b_thinking_2507": 262144,
    }
)
# What a repository adds to the name of a model: how it is quantized, tuned, or dated.
_VARIANT = re.compile(
    r"_(fp8|fp4|nvfp4|mxfp4|int4|int8|awq|gptq|bf16|w4a16|w8a8|dynamic|static|block|per|tensor|"
    r"pertensor|kv|hf|base|chat|it|instruct|v0_1|0324|0528)$"
)


def shipped_models() -> tuple[str, ...]:
    """The names of the models whose config.json comes with the package."""
    folders = (folder for folder in files("moe_placement").joinpath("data").iterdir())
    return tuple(sorted(f.name for f in folders if f.joinpath("config.json").is_file()))


def find_model(name_or_path: str) -> ModelSpec:
    """A model by name or file, as `find_config` has it; errors also as `ModelSpec.from_config`."""
    return ModelSpec.from_config(find_config(name_or_path))


def find_config(name_or_path: str) -> dict[str, Any]:
    """The config.json of a model.

    Args:
        name_or_path: a config.json, a folder with one, a shipped name (deepseek_v3), or a
            Hugging Face name, quantized or tuned variants included
            (Qwen/Qwen3-235B-A22B-Instruct-2507-FP8).

    Raises:
        UnknownModelError: there is no such name or file; names the nearest shipped ones.
        SpecError: the file cannot be read.
    """
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return _read(path.read_text("utf-8", errors="replace"), str(path))
    name = _known_name(name_or_path)
    shipped = _SAME_SHAPE.get(name, name)
    file = files("moe_placement").joinpath("data", shipped, "config.json")
    config = _read(file.read_text("utf-8"), shipped)
    return config | ({"max_position_embeddings": _CONTEXTS[name]} if name in _CONTEXTS else {})


def shipped_name(name: str) -> str:
    """The shipped model that a name means, in any case and with any owner before a slash.

    Raises:
        UnknownModelError: none does; names the nearest shipped ones.
    """
    known = _known_name(name)
    return _SAME_SHAPE.get(known, known)


def _known_name(name: str) -> str:
    base = re.sub(r"[^a-z0-9]+", "_", name.rstrip("/").rsplit("/", 1)[-1].lower()).strip("_")
    base = base.removeprefix("meta_")
    known = (*shipped_models(), *_SAME_SHAPE)
    candidate = base
    while candidate not in known:
        shorter = _VARIANT.sub("", candidate)
        if shorter == candidate:
            raise UnknownModelError(_unknown(name, base))
        candidate = shorter
    return candidate


def _unknown(name: str, base: str) -> str:
    shipped = shipped_models()
    near = get_close_matches(base, [*shipped, *_SAME_SHAPE], n=3, cutoff=0.5)
    listed = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(shipped)}"
    return f"model {name!r} is neither a file nor shipped; {listed}, or give its config.json"


def _read(text: str, source: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"{source} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SpecError(f"{source} holds {type(config).__name__}; it must be an object of settings")
    return config
