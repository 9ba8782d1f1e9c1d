"""One rank of the slices benchmark: hosts the models of a config, and serves them in runs.

`python -m moe_serve.bench.slices_worker FOLDER` under mpirun; FOLDER has config.yaml. Rank 0 reads
runs from its standard input, a line of JSON each and an empty one behind, and answers each by a
line that names the file with the ranks' logs.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil

from moe_serve.bench.slices_job import READY, RankLog, Run
from moe_serve.bench.slices_line import Line
from moe_serve.bench.slices_memory_watch import MemoryWatch
from moe_serve.bench.slices_recorded import RecordedTenants, TenantsInTurn
from moe_serve.bring_up import Meeting, meet
from moe_serve.config.load import load_config
from moe_serve.control.meeting.world import die_with_parent, launched_world
from moe_serve.even_steps import even_steps
from moe_serve.hosting import Host, host_models, no_plan
from moe_serve.step.changes import TenantChanges, no_changes
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.worker import Worker


class Serving:
    """The hosted models of one rank, served by one worker after the other."""

    def __init__(self, host: Host, rank: int, base: int) -> None:
        self._host = host
        self._rank = rank
        self._base = base
        self._vocab_sizes = {
            tenant.number: served.vocab_size
            for tenant, served in zip(host.tenants, host.served, strict=True)
        }

    def run(self, run: Run) -> RankLog:
        log = RankLog(base=self._base)
        tenants = self._tenants(run, log)
        before, bounding_before = self._num_preemptions(), self._bounding_seconds()
        line = Line(run, self._rank, self._vocab_sizes, log)
        load, mover = self._experts()
        Worker(
            self._rank,
            tenants,
            self._changes(run, tenants),
            self._host.exchange,
            line,
            lambda: None,
            load,
            mover,
            main_tenant=self._host.main_tenant,
        ).run()
        tenants.abort_all()
        log.bounding_seconds = self._bounding_seconds() - bounding_before
        log.num_preemptions = {
            number: count - before[number] for number, count in self._num_preemptions().items()
        }
        return log

    def _tenants(self, run: Run, log: RankLog) -> RecordedTenants:
        kind = TenantsInTurn if run.in_turn else RecordedTenants
        look = MemoryWatch(self._host.tenants, log).look if run.watches_memory else None
        opened = [
            replace(self._host.tenants[number], share=percent / 100, is_hard=number in run.hard)
            for number, percent in run.percents.items()
        ]
        return kind(self._rank, self._host.config.scheduler.max_step, opened, log, look)

    def _changes(self, run: Run, tenants: RecordedTenants) -> TenantChanges:
        if run.visitor is None:
            return no_changes(self._rank, tenants)
        loader = self._host.loader
        assert loader is not None
        return TenantChanges(self._rank, tenants, loader.load, loader.settle, loader.dismiss)

    def _experts(self) -> tuple[ExpertCounter, ExpertMover]:
        """Of the first model on all ranks; nothing moves here."""
        if self._host.main is not None:
            return self._host.main.loaded.load, self._host.main.loaded.mover
        plan = no_plan(self._host.config)
        return ExpertCounter((), 0), ExpertMover.of_no_experts(self._rank, plan)

    def _bounding_seconds(self) -> float:
        engines = (tenant.engine for tenant in self._host.tenants if tenant.engine is not None)
        return sum(engine.stats().step_seconds.get("bounding", 0.0) for engine in engines)

    def _num_preemptions(self) -> dict[int, int]:
        return {
            tenant.number: tenant.engine.stats().num_preemptions
            for tenant in self._host.tenants
            if tenant.engine is not None
        }


def main() -> None:
    die_with_parent()
    folder = Path(sys.argv[1])
    config = load_config(folder / "config.yaml")
    meeting = meet(config, launched_world())
    base = psutil.Process().memory_info().rss
    serving = Serving(host_models(config, meeting), meeting.launch.rank, base)
    even_steps()
    if meeting.launch.rank == 0:
        print(READY, flush=True)
    for number, run in enumerate(_runs(meeting)):
        mine = msgspec.msgpack.encode(serving.run(run))
        logs = meeting.exchange.allgather_bytes(mine)
        if meeting.launch.rank == 0:
            file = folder / f"run-{number}.msgpack"
            file.write_bytes(msgspec.msgpack.encode([msgspec.Raw(log) for log in logs]))
            print(file, flush=True)
    meeting.close()


def _runs(meeting: Meeting) -> Iterator[Run]:
    """Until rank 0's standard input has an empty line, or ends."""
    while True:
        line = sys.stdin.buffer.readline() if meeting.launch.rank == 0 else b""
        line = meeting.exchange.allgather_bytes(line)[0]
        if not line.strip():
            return
        yield msgspec.json.decode(line, type=Run)


if __name__ == "__main__":
    main()
