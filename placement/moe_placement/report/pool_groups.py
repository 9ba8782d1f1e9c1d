"""Which group of a cluster a pool's devices are of."""

from collections.abc import Sequence

from moe_placement.hardware.cluster import NodeGroup


def group_index(pool_name: str, groups: Sequence[NodeGroup]) -> int | None:
    """Pools are named after their group, some with a role behind it; None where no group fits."""
    fitting = [
        index
        for index, group in enumerate(groups)
        if pool_name == group.name or pool_name.startswith(f"{group.name}-")
    ]
    return max(fitting, key=lambda index: len(groups[index].name), default=None)
