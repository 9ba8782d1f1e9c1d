"""Bytes of the weights on one rank, by part, and its share of a token's cache."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_placement.model.formats import FormatError, format_bytes, matrix_bytes, part_formats
from moe_placement.model.mlp import gated_rows
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PlanError, PoolPlan

OTHER_WEIGHTS = (
    "attention",
    "dense_mlp",
    "shared_experts",
    "embedding_and_head",
    "gates_and_norms",
    "rotary_table",
)
# Kinds of devices whose kernels keep matrices in a layout of their own. The embedding is kept
# plain, for its rows are looked up, so there a head tied to it is a second copy.
_PACKING_DEVICES = frozenset({"cpu", "emulated"})
# What that layout adds to each output row of an int8 matrix.
_PACKED_ROW_BYTES = 4
_PLAIN_FORMATS = {2: "bfloat16", 4: "float32"}
# Narrow formats whose matrices alone are narrow: what is multiplied head by head, and what is in
# no matrix, stays as wide as activations. Kernels for the others are not ours.
_MATRICES_ALONE = frozenset({"bfloat16", "float16", "int8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Weights of one part on one rank.

    Attributes:
        elements: all of them.
        rows: output rows of its matrices.
        wide: elements that are not in these matrices.
    """

    elements: int
    rows: int
    wide: int = 0


def rank_weights(
    spec: ModelSpec, pool: PoolPlan, num_slots: int, activation_bytes: int
) -> dict[str, int]:
    """Bytes of each part on one rank of a pool, scales included.

    Which parts a narrow format holds is said by `part_formats`; the others are as wide as
    activations, as the rotary table always is, and gates with their correction biases are
    float32. Attention, dense layers, shared experts and the vocabulary are divided by the pool's
    tensor parallelism, but for what attention copies. A tied head counts where the device's
    kernels pack matrices. Absorbed matrices and biases are as wide as activations in the formats
    that the engine serves.

    Args:
        num_slots: of the rank, over all layers.

    Raises:
        PlanError: names the pool whose weight format is not known.
    """
    try:
        formats = part_formats(
            pool.weight_format,
            has_experts=bool(spec.moe_layers),
            plain_format=_PLAIN_FORMATS[activation_bytes],
        )
    except FormatError as error:
        raise PlanError(f"pool {pool.name!r}: {error}") from error
    experts = num_slots * expert_bytes(spec, pool.weight_format, pool.device)
    if pool.role == "experts":
        return dict.fromkeys(OTHER_WEIGHTS, 0) | {"experts": experts}
    embedding, head = (-(-count // pool.tensor_parallel) for count in (spec.embedding, spec.head))
    head = head or embedding * (pool.device in _PACKING_DEVICES)
    return {
        part: _bytes(held, formats[part], pool.device, activation_bytes)
        for part, held in _parts(spec, pool.tensor_parallel).items()
    } | {
        "embedding_and_head": format_bytes(embedding + head, formats["embedding"]),
        "gates_and_norms": format_bytes(spec.parameters["gate"] + spec.num_buffers, formats["gate"])
        + format_bytes(spec.norms, formats["norms"]),
        "rotary_table": spec.rotary_elements * activation_bytes,
        "experts": experts,
    }


def expert_bytes(spec: ModelSpec, weight_format: str, device: str) -> int:
    """Bytes of one routed expert of one layer as the kernels of a kind of device keep it.

    Raises:
        FormatError: a weight format that is not known.
    """
    rows = gated_rows(spec.hidden_size, spec.mlp.expert_width)
    return spec.expert_bytes(weight_format) + _packing(rows, weight_format, device)


def _parts(spec: ModelSpec, degree: int) -> Mapping[str, _Part]:
    """What one of `degree` ranks holds of the parts whose matrices have the pool's format."""
    hidden, mlp, layers = spec.hidden_size, spec.mlp, spec.attention_layers
    return {
        "attention": _Part(
            elements=sum(number * layer.parameters_of(degree) for layer, number in layers),
            rows=sum(number * layer.rows_of(degree) for layer, number in layers),
            wide=sum(
                number * -(-(layer.head_parameters + layer.vector_parameters) // degree)
                for layer, number in layers
            ),
        ),
        "dense_mlp": _gated(hidden, mlp.dense_width, mlp.dense, spec.num_dense_layers, degree),
        "shared_experts": _gated(
            hidden, mlp.shared_width, mlp.shared_experts, len(spec.moe_layers), degree
        ),
    }


def _gated(hidden: int, width: int, parameters: int, num_layers: int, degree: int) -> _Part:
    return _Part(
        elements=-(-num_layers * parameters // degree),
        rows=num_layers * gated_rows(hidden, -(-width // degree)) * (width > 0),
        wide=-(-num_layers * (parameters - 3 * hidden * width) // degree),
    )


def _bytes(part: _Part, name: str, device: str, activation_bytes: int) -> int:
    wide = part.wide if name in _MATRICES_ALONE else 0
    matrices = matrix_bytes(part.elements - wide, part.rows, name)
    return wide * activation_bytes + matrices + _packing(part.rows, name, device)


def _packing(num_rows: int, name: str, device: str) -> int:
    return _PACKED_ROW_BYTES * num_rows * (name == "int8" and device in _PACKING_DEVICES)


def cache_elements(spec: ModelSpec, tensor_parallel: int) -> int:
    """Cache elements of one token on one rank over all layers, windows aside."""
    return sum(
        count
        * (
            -(-layer.kv_elements // min(tensor_parallel, layer.num_kv_heads))
            + layer.indexer_elements
        )
        for layer, count in spec.attention_layers
    )
