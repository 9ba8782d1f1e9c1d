"""One entry of a moe_serve config's models: where it is, and what it has of its ranks."""

from dataclasses import dataclass

from moe_placement.hardware.section import Section
from moe_placement.hardware.units import TEXT, Kind
from moe_placement.model.architectures import UnsupportedModelError
from moe_placement.model.catalogue import UnknownModelError, find_config
from moe_placement.model.names import BUILTIN, served_name
from moe_placement.model.spec import ModelSpec
from moe_placement.packing.known_devices import PERCENT, one_of
from moe_placement.packing.model_memory import alone_bytes
from moe_placement.packing.serve_ranks import ServeRanks
from moe_placement.plan import PlanError

_DEMO = "demo"
_MIB = 1 << 20
# Of cache, at least, for a model that says no memory.
_LEAST_TOKENS = 256
_DTYPES = ("float32", "bfloat16", "float16")
_ANY_TEXT: Kind[str] = Kind("text", lambda value: value if isinstance(value, str) else None)
_WHOLE: Kind[int] = Kind("a whole number", lambda value: value if type(value) is int else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeModel:
    """Attributes:
    spans: it is on all ranks; else on one, which `rank` says or, at -1, packing chooses.
    compute: share of each of its ranks; 0 where it says none.
    memory: bytes of its rank, or of each plan rank; the least that it needs where it says none.
    at_once: it has processors to itself.
    """

    name: str
    spans: bool
    rank: int
    compute: float
    memory: tuple[int, ...]
    hard: bool
    at_once: bool


def read_model(section: Section, ranks: ServeRanks, is_first: bool) -> ServeModel:
    """One model.

    Args:
        is_first: the first of the config, which its placement is about.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
    """
    path = section.take("path", TEXT)
    share = section.section("slice")
    spread = section.get("spread", one_of("auto", "all", "one"), "auto")
    rank = section.get("rank", _WHOLE, -1)
    if not -1 <= rank < len(ranks.devices):
        raise section.error(
            f"{section.where}.rank is {rank}; the pools have ranks 0 to {len(ranks.devices) - 1}"
        )
    memory = share.get("memory_mb", _WHOLE, 0) * _MIB
    asks = spread == "auto" and rank < 0
    known = _known(section, path) if asks or not memory else None
    spans = spread == "all" or (asks and _has_experts(path, known))
    return ServeModel(
        name=served_name(path, section.get("name", _ANY_TEXT, "")),
        spans=spans,
        rank=rank,
        compute=share.get("compute_percent", PERCENT, 0.0),
        memory=_memory(section, ranks, known, spans, is_first)
        if not memory
        else (memory,) * (len(ranks.devices) if spans else 1),
        hard=share.get("mode", one_of("share", "hard"), "share") == "hard",
        at_once=share.get("isolate", one_of("time", "sm"), "time") == "sm",
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """A model whose config.json can be read."""

    spec: ModelSpec
    dtype: str


def _known(section: Section, path: str) -> _Known | None:
    """What the model's config.json says; None for an encoder, and for the demo, which is made when
    it is first served."""
    if path == _DEMO:
        return None
    try:
        config = find_config(path.removeprefix(BUILTIN))
        dtype = config.get("dtype", config.get("torch_dtype", "float32"))
        return _Known(ModelSpec.from_config(config), dtype if dtype in _DTYPES else "bfloat16")
    except UnsupportedModelError:
        return None
    except UnknownModelError as error:
        raise section.error(
            f"{section.where}.path: {error}; or write spread and slice.memory_mb, and it is not "
            "looked at"
        ) from error


def _has_experts(path: str, known: _Known | None) -> bool:
    return path == _DEMO if known is None else known.spec.num_experts > 0


def _memory(
    section: Section, ranks: ServeRanks, known: _Known | None, spans: bool, is_first: bool
) -> tuple[int, ...]:
    """The least that the model needs of its ranks."""
    if known is None:
        raise section.error(
            f"{section.where}.slice.memory_mb is missing, and what the model needs is not known "
            "here; write it"
        )
    dtype = section.get("dtype", one_of("auto", *_DTYPES), "auto")
    dtype = known.dtype if dtype == "auto" else dtype
    if not spans:
        alone = alone_bytes(
            known.spec,
            device=ranks.pools[0].device,
            weight_format=dtype,
            kv_tokens=_LEAST_TOKENS,
            limits=ranks.limits,
        )
        return (alone,)
    try:
        return ranks.spanning_bytes(known.spec, dtype, _LEAST_TOKENS, is_first=is_first)
    except PlanError as error:
        raise section.error(f"placement.plan: {error}") from error
