"""What a measured row ran: model, device, parallelism, formats, limits, as the cost model asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moe_placement.accuracy.rows import Row, UnpredictableError
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.terms import StepTerms, step_terms
from moe_placement.cost.work import StepWork, step_work
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.section import HardwareError
from moe_placement.model.catalogue import find_model
from moe_placement.model.formats import find_format
from moe_placement.model.spec import ModelSpec
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import RequestShape

_FORMATS: Mapping[str, str] = MappingProxyType(
    {"fp8": "fp8", "fp4": "fp4", "int4": "int4", "bf16": "bfloat16"}
)
# InferenceMAX, whose rows have lengths in powers of two, draws each length evenly between 0.8
# times the nominal one and that one; the other rows' lengths are fixed.
_NOMINAL_UNIT = 1024
_MEAN_LENGTH = 0.9
# Defaults of the engines, and of the memory that they take for weights and cache together.
_MAX_TOKENS_PER_STEP = 8192.0
_MAX_SEQUENCES = 1e6
_MEMORY_SHARE = 0.92
_WORKING_SPACE = 3e9
_LEAST_CACHE_SHARE = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker as the cost model sees it.

    Attributes:
        groups: attention groups.
    """

    work: StepWork
    terms: StepTerms
    limits: ServingLimits
    groups: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Workers, requests and clients of one row, or of many rows: then all numbers are arrays.

    Attributes:
        decode: the worker that decodes, and also prefills where `prefill` is None.
    """

    decode: Worker
    prefill: Worker | None
    num_decode: float
    num_prefill: float
    clients: float
    request: RequestShape


def deployment(row: Row) -> Deployment:
    """Read a row.

    Raises:
        UnpredictableError: it lacks what a prediction needs, or names what is unknown here.
    """
    row.require_complete()
    if row.concurrency is None:
        raise UnpredictableError("no concurrency")
    share = 1.0 if row.isl % _NOMINAL_UNIT else _MEAN_LENGTH
    request = RequestShape(
        prompt=share * row.isl,
        cached=0.0,
        steps=max(1.0, share * row.osl - 1),
        tokens_per_step=1.0,
    )
    is_apart = row.mode == "disagg"
    return Deployment(
        decode=_worker(row, "decode_" if is_apart else "", request),
        prefill=_worker(row, "prefill_", request) if is_apart else None,
        num_decode=float(row.decode_num_workers or 1),
        num_prefill=float(row.prefill_num_workers or 1),
        clients=row.concurrency / _num_copies(row),
        request=request,
    )


def _num_copies(row: Row) -> int:
    """Workers of an aggregated row that share its clients: `batch_size` is of one attention
    group, so groups that do not make up the concurrency are one of several workers'."""
    if row.mode == "disagg" or not row.batch_size or not row.attention_dp_size:
        return 1
    assert row.concurrency is not None
    copies, rest = divmod(row.concurrency, row.batch_size * row.attention_dp_size)
    return max(1, copies) if not rest else 1


def parallelism_of(row: Row, phase: str = "", *, has_experts: bool = True) -> Parallelism:
    """A row's degrees on the devices that there really were, for the columns of one phase.

    Where experts are parallel over all of attention's devices, some aggregated rows give both
    degrees and some their product: `tp 64, moe_tp 8, moe_ep 8` and `tp 4, dp 4, moe_ep 16` are
    in other rows, with the same measurements, `tp 8, moe_ep 8` and `tp 4, moe_ep 4`.
    """
    tensor = getattr(row, f"{phase}tp_size") or 1
    data = getattr(row, f"{phase}attention_dp_size") or 0
    expert_tensor = getattr(row, f"{phase}moe_tp_size") or 1
    expert = getattr(row, f"{phase}moe_ep_size") or 1
    if not phase and not data and _is_attention_split(row, tensor):
        tensor, data = 1, tensor
    data = data or max(1, expert_tensor * expert // tensor if has_experts else 1)
    if not phase and expert_tensor == expert > 1 and tensor * data == expert**2:
        tensor, data, expert_tensor = (expert, 1, 1) if data == 1 else (1, expert, 1)
    elif not phase and tensor == data > 1 and expert == tensor * data:
        data, expert = 1, tensor
    if not has_experts or expert_tensor * expert != tensor * data:
        expert = 1 if tensor * data % expert or not has_experts else expert
        expert_tensor = tensor * data // expert
    return Parallelism(
        tensor_parallel=tensor,
        data_parallel=data,
        expert_parallel=expert,
        expert_tensor_parallel=expert_tensor,
        pipeline_stages=getattr(row, f"{phase}pp_size") or 1,
    )


def _is_attention_split(row: Row, tensor: int) -> bool:
    """Without a degree for it: each of the devices had a batch of its own."""
    return tensor > 1 and row.concurrency == (row.batch_size or 0) * tensor


def _worker(row: Row, phase: str, request: RequestShape) -> Worker:
    spec, device = _known(row)
    weights = _FORMATS[row.precision]
    cache = _cache_format(row, device)
    parallelism = parallelism_of(row, phase, has_experts=bool(spec.num_experts))
    return Worker(
        work=step_work(spec, parallelism, weights, cache),
        terms=step_terms(spec, device, parallelism, weights, cache, row.backend),
        limits=_limits(spec, device, parallelism, weights, cache, request),
        groups=float(parallelism.data_parallel),
    )


def _known(row: Row) -> tuple[ModelSpec, DeviceSpec]:
    if row.precision not in _FORMATS:
        raise UnpredictableError(f"unknown precision {row.precision}")
    try:
        device = find_device(row.system)
    except HardwareError:
        raise UnpredictableError(f"unknown system {row.system}") from None
    try:
        return find_model(row.model_path), device
    except ValueError:
        raise UnpredictableError(f"unknown model {row.model_path}") from None


def _cache_format(row: Row, device: DeviceSpec) -> str:
    """8 bits where the recipes behind the rows have them: TensorRT-LLM, and on Blackwell."""
    return "fp8" if row.backend == "trtllm" or "fp4" in device.flops else "bfloat16"


def _limits(
    spec: ModelSpec,
    device: DeviceSpec,
    parallelism: Parallelism,
    weight_format: str,
    kv_format: str,
    request: RequestShape,
) -> ServingLimits:
    groups, memory = parallelism.data_parallel, device.memory_bytes
    held = spec.bytes(weight_format)
    experts = held.pop("experts") / parallelism.devices_per_stage
    weights = (sum(held.values()) / parallelism.tensor_parallel + experts) / (
        parallelism.pipeline_stages
    )
    free = max(_LEAST_CACHE_SHARE * memory, _MEMORY_SHARE * memory - weights - _WORKING_SPACE)
    length = request.prompt + request.steps
    shares = min(parallelism.tensor_parallel, spec.attention.num_kv_heads)
    element_bytes = find_format(kv_format).bits_per_element / 8
    token = spec.kv_elements_at(length) / length * element_bytes / shares
    return ServingLimits(
        max_tokens_per_step=_MAX_TOKENS_PER_STEP * groups,
        max_sequences=_MAX_SEQUENCES,
        kv_tokens=free / token * groups * parallelism.pipeline_stages,
        num_groups=float(groups),
    )
