"""What tenants hold by the ledger, and what their process holds, while they are served."""

import time
from collections.abc import Sequence

import psutil

from moe_serve.bench.slices_job import MemorySample, RankLog
from moe_serve.step.tenant import Tenant

# Reading what a process holds takes a tenth of a small step.
_SECONDS_BETWEEN_SAMPLES = 0.02


class MemoryWatch:
    """
    Args:
        tenants: all of the rank.
        log: gets the most that each tenant held, and samples of ledger and process together.
    """

    def __init__(self, tenants: Sequence[Tenant], log: RankLog) -> None:
        self._tenants = tenants
        self._log = log
        self._process = psutil.Process()
        self._next_sample = 0.0

    def look(self) -> None:
        """Behind each step."""
        ledger = {tenant.number: tenant.memory() for tenant in self._tenants}
        for number, held in ledger.items():
            most = self._log.most_held.setdefault(number, {})
            for part, num_bytes in held.items():
                most[part] = max(most.get(part, 0), num_bytes)
        now = time.perf_counter()
        if now >= self._next_sample:
            self._next_sample = now + _SECONDS_BETWEEN_SAMPLES
            resident = self._process.memory_info().rss
            self._log.samples.append(MemorySample(at=now, ledger=ledger, resident=resident))
