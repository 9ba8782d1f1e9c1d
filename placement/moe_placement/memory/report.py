"""What does not fit, in sentences."""

from collections.abc import Iterable

from moe_placement.memory.rank_memory import RankMemory


def fit_problems(memories: Iterable[RankMemory]) -> tuple[str, ...]:
    """One sentence for each pool that lacks room, about its worst rank; none if all fit."""
    by_pool: dict[str, list[RankMemory]] = {}
    for memory in memories:
        if not memory.fits:
            by_pool.setdefault(memory.pool, []).append(memory)
    return tuple(_problem(lacking) for lacking in by_pool.values())


def format_bytes(num_bytes: int) -> str:
    """One decimal, in the largest of B, KiB, MiB and GiB that leaves at least 1."""
    for exponent, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if num_bytes >= 1024**exponent:
            return f"{num_bytes / 1024**exponent:.1f} {unit}"
    return f"{num_bytes} B"


def _problem(lacking: list[RankMemory]) -> str:
    worst = max(lacking, key=lambda memory: memory.shortfall)
    others = f" ({len(lacking)} ranks of pool {worst.pool} lack room)" if len(lacking) > 1 else ""
    return (
        f"plan needs {format_bytes(worst.total)} on {worst.device}, "
        f"{format_bytes(worst.budget)} free{others}; {_advice(worst)}"
    )


def _advice(memory: RankMemory) -> str:
    pages = (memory.budget - memory.weights - memory.working_space) // (memory.page_bytes or 1)
    if memory.pages_fixed and pages >= 1:
        return f"lower cache.num_pages from {memory.num_pages} to {pages}, or add a device"
    if memory.total <= memory.device_bytes:
        thousandths = -(-1000 * memory.total // memory.device_bytes)
        return f"raise cache.memory_fraction to {thousandths / 1000:.3f}, or add a device"
    if memory.working_space >= memory.shortfall:
        return "lower scheduler.max_tokens_per_step, add a device, or use a smaller weight format"
    return "add a device, or use a smaller weight format"
