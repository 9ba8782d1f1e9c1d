"""Packed experts of which each has weights of its own: any of them make another set, uncopied."""

from collections.abc import Sequence

from moe_kernels.ops import Packed


def gather_pairs(sources: Sequence[tuple[Packed, int]]) -> Packed:
    """Of packed ones that are a sequence of gates with ups, and one of downs, by expert."""
    return (
        tuple(packed[0][place] for packed, place in sources),
        tuple(packed[1][place] for packed, place in sources),
    )
