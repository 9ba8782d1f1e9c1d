"""Bytes of the weights on one rank, by part, and its share of a token's cache."""

from moe_placement.model.formats import FormatError, format_bytes, part_formats
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
_PLAIN_FORMATS = {2: "bfloat16", 4: "float32"}


def rank_weights(
    spec: ModelSpec, pool: PoolPlan, num_slots: int, activation_bytes: int
) -> dict[str, int]:
    """Bytes of each part on one rank of a pool, scales included.

    Which parts a narrow format holds is said by `part_formats`; the others are as wide as
    activations, as the rotary table always is, and gates with their correction biases are
    float32. Attention, dense layers, shared experts and the vocabulary are divided by the pool's
    tensor parallelism, but for what attention copies. A tied head counts where the device's
    kernels pack matrices.

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
    experts = format_bytes(num_slots * spec.mlp.expert, pool.weight_format)
    if pool.role == "experts":
        return dict.fromkeys(OTHER_WEIGHTS, 0) | {"experts": experts}
    count = {part: -(-number // pool.tensor_parallel) for part, number in spec.parameters.items()}
    count["attention"] = sum(
        number * layer.parameters_of(pool.tensor_parallel)
        for layer, number in spec.attention_layers
    )
    head = count["head"] or count["embedding"] * (pool.device in _PACKING_DEVICES)
    return {
        "attention": format_bytes(count["attention"], formats["attention"]),
        "dense_mlp": format_bytes(count["dense_mlp"], formats["dense_mlp"]),
        "shared_experts": format_bytes(count["shared_experts"], formats["shared_experts"]),
        "embedding_and_head": format_bytes(count["embedding"] + head, formats["embedding"]),
        "gates_and_norms": format_bytes(spec.parameters["gate"] + spec.num_buffers, formats["gate"])
        + format_bytes(spec.norms, formats["norms"]),
        "rotary_table": spec.rotary_elements * activation_bytes,
        "experts": experts,
    }


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
