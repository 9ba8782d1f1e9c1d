"""Whether attention heads can be shared among ranks; without torch, so that anyone may ask."""

from moe_serve.errors import UnsupportedError


def check_heads(tensor_parallel: int, num_heads: int, num_kv_heads: int = 1) -> None:
    """Each rank has as many query heads as the others, and as many key-value heads: its part of
    them, or a copy of the one that its query heads need.

    Args:
        num_kv_heads: 1 where all heads share a latent.

    Raises:
        UnsupportedError: the heads do not come out even.
    """
    if num_heads % tensor_parallel:
        raise UnsupportedError(
            f"attention.tensor_parallel: {tensor_parallel} ranks cannot share {num_heads} "
            "attention heads evenly; take a divisor of that"
        )
    if num_kv_heads % tensor_parallel and tensor_parallel % num_kv_heads:
        raise UnsupportedError(
            f"attention.tensor_parallel: {tensor_parallel} ranks cannot share {num_kv_heads} "
            "key-value heads evenly; take a divisor or a multiple of that"
        )
