"""The cost model's few fitted numbers, each with its unit, its bounds and what it means."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

SHIPPED = "coefficients.json"


class CoefficientsError(ValueError):
    """A file of coefficients that cannot be used: names file, key, value and what to do."""


def _coefficient(default: float, low: float, high: float, unit: str, meaning: str) -> Any:
    """A number that starts at its physical prior and that a fit keeps within its bounds."""
    return field(
        default=default, metadata={"low": low, "high": high, "unit": unit, "meaning": meaning}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Numbers of mechanisms, none of a model, a configuration or a measured point.

    Efficiencies are shares of the catalogue's peaks. Terms of an engine carry its name; an
    engine that has none is priced at the mean of those that have.
    """

    weight_read: float = _coefficient(
        0.75, 0.3, 1.0, "share", "of peak bandwidth in reading weights that all tokens use"
    )
    expert_read: float = _coefficient(
        0.65, 0.2, 1.0, "share", "of peak bandwidth in reading experts' weights"
    )
    cache_read: float = _coefficient(
        0.6, 0.1, 1.0, "share", "of peak bandwidth in reading the KV cache"
    )
    dense_compute: float = _coefficient(
        0.6, 0.1, 0.95, "share", "of peak FLOP/s in products that all tokens use"
    )
    expert_compute: float = _coefficient(
        0.45, 0.05, 0.9, "share", "of peak FLOP/s in experts' products"
    )
    attention_compute: float = _coefficient(
        0.45, 0.05, 0.9, "share", "of peak bf16 FLOP/s in prefill attention"
    )
    narrow_compute: float = _coefficient(
        0.8, 0.15, 3.0, "ratio", "of the share that 4-bit products reach to that of others"
    )
    wide_compute: float = _coefficient(
        0.7, 0.1, 1.5, "ratio", "of the share that 8-bit experts' products reach to that of others"
    )
    blackwell_compute: float = _coefficient(
        0.85, 0.3, 1.5, "ratio", "of the share that devices with FP4 units reach to that of others"
    )
    dense_overlap: float = _coefficient(
        2.0, 1.0, 8.0, "1", "exponent of the smooth maximum of reading and computing elsewhere"
    )
    expert_overlap: float = _coefficient(
        2.0, 1.0, 8.0, "1", "exponent of the smooth maximum of reading and computing experts"
    )
    popularity_shape: float = _coefficient(
        1.0, 0.2, 8.0, "1", "of the gamma distribution of experts' popularity, 1 / variance"
    )
    expert_tile: float = _coefficient(
        8.0, 0.0, 64.0, "rows", "of padding for each expert that is touched"
    )
    wide_trtllm: float = _coefficient(
        1.1, 0.7, 2.5, "ratio", "of the time of 8-bit experts in TensorRT-LLM to that in others"
    )
    group_imbalance: float = _coefficient(
        0.5,
        0.0,
        3.0,
        "share",
        "excess of the fullest device's rows over the mean at infinite parallelism",
    )
    token_traffic: float = _coefficient(
        8.0, 0.0, 80.0, "bytes", "moved by a layer's small kernels per element of the hidden state"
    )
    row_traffic: float = _coefficient(
        8.0, 0.0, 40.0, "bytes", "moved to gather, quantise and scatter an element of a routed row"
    )
    kernel_vllm: float = _coefficient(
        2.5e-6, 3e-7, 1e-5, "s", "of one kernel that has next to nothing to do in vLLM"
    )
    kernel_sglang: float = _coefficient(
        2.5e-6, 3e-7, 1e-5, "s", "of one kernel that has next to nothing to do in SGLang"
    )
    kernel_trtllm: float = _coefficient(
        2.5e-6, 3e-7, 1e-5, "s", "of one kernel that has next to nothing to do in TensorRT-LLM"
    )
    hopper_kernels: float = _coefficient(
        1.2, 0.6, 2.5, "ratio", "of a kernel's least time on devices without FP4 units"
    )
    exchange_latency: float = _coefficient(
        5e-6, 5e-7, 3e-5, "s", "of one all-reduce between two devices"
    )
    exchange_growth: float = _coefficient(
        0.3, 0.0, 1.0, "1", "power of the number of devices that an all-reduce's latency grows with"
    )
    exchange_bandwidth: float = _coefficient(
        0.6, 0.1, 1.2, "share", "of link bandwidth that exchanges reach"
    )
    sequence_vllm: float = _coefficient(
        1e-5, 0.0, 1e-4, "s", "of host work for each sequence in a step in vLLM"
    )
    sequence_sglang: float = _coefficient(
        1e-5, 0.0, 1e-4, "s", "of host work for each sequence in a step in SGLang"
    )
    sequence_trtllm: float = _coefficient(
        1e-5, 0.0, 1e-4, "s", "of host work for each sequence in a step in TensorRT-LLM"
    )
    compute_sglang: float = _coefficient(
        0.8, 0.3, 1.5, "ratio", "of the FLOP/s that products reach in SGLang to those in vLLM"
    )
    compute_trtllm: float = _coefficient(
        0.9, 0.3, 1.5, "ratio", "of the FLOP/s that products reach in TensorRT-LLM to those in vLLM"
    )
    request: float = _coefficient(
        0.01, 0.0, 0.1, "s", "of a request's own way in and its first token's way out"
    )
    poll_vllm: float = _coefficient(
        1.0, 0.0, 40.0, "steps", "that a request waits before vLLM looks for new ones"
    )
    poll_sglang: float = _coefficient(
        10.0, 0.0, 40.0, "steps", "that a request waits before SGLang looks for new ones"
    )
    poll_trtllm: float = _coefficient(
        1.0, 0.0, 40.0, "steps", "that a request waits before TensorRT-LLM looks for new ones"
    )
    handover_steps: float = _coefficient(
        12.0, 4.0, 24.0, "steps", "of decoding from a prefill's end to the first token elsewhere"
    )
    opening_share: float = _coefficient(
        0.1, 0.0, 0.5, "share", "of a closed-loop benchmark's requests that come all at once"
    )
    opening_apart: float = _coefficient(
        0.16, 0.1, 0.22, "share", "of them in benchmarks of prefill and decode workers apart"
    )


ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a set of coefficients was fitted to, and how to do it again."""

    sha256: str
    num_rows: int
    date: str
    command: str


def load_coefficients(path: Path | None = None) -> Coefficients:
    """The coefficients of a file, by default those shipped.

    Raises:
        CoefficientsError: names the file and the key that is missing, unknown or not a number.
    """
    return _read(path)[0]


def load_provenance(path: Path | None = None) -> Provenance:
    """What the coefficients of a file, by default those shipped, were fitted to."""
    return _read(path)[1]


def save_coefficients(path: Path, coefficients: Coefficients, provenance: Provenance) -> None:
    """Write a file that `load_coefficients` reads."""
    notes = {entry.name: dict(entry.metadata) for entry in fields(coefficients)}
    values = {
        name: {
            "value": float(f"{value:.6g}"),
            "unit": notes[name]["unit"],
            "meaning": notes[name]["meaning"],
        }
        for name, value in asdict(coefficients).items()
    }
    text = json.dumps({"provenance": asdict(provenance), "coefficients": values}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _read(path: Path | None) -> tuple[Coefficients, Provenance]:
    source = files("moe_placement").joinpath("data", SHIPPED) if path is None else path
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        provenance = Provenance(**content["provenance"])
        values = {name: entry["value"] for name, entry in content["coefficients"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CoefficientsError(
            f"{source}: is not a file of coefficients ({error!r}); fit them anew"
        ) from error
    return Coefficients(**_check(values, str(source))), provenance


def _check(values: Mapping[str, Any], source: str) -> dict[str, float]:
    names = {entry.name for entry in fields(Coefficients)}
    for name in sorted(names ^ values.keys()):
        fault = "is missing" if name in names else "is unknown"
        raise CoefficientsError(f"{source}: coefficient {name} {fault}; fit them anew")
    for name, value in values.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CoefficientsError(
                f"{source}: coefficient {name} must be a number, found {value!r}"
            )
    return {name: float(value) for name, value in values.items()}
