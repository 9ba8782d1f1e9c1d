"""One rank of the pools benchmark: all its sequences decode together; rank 0 prints JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from moe_devices.quota import enter
from moe_placement.load.trace_file import save

from moe_serve.control.meeting.world import launched_world
from moe_serve.llm import LLM
from moe_serve.messages import RankStats
from moe_serve.types import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolJob:
    """What every rank is asked.

    Attributes:
        config: a file.
        num_sequences: of all ranks together. Each begins with a prompt of one token, so that the
            first step is as large as the others.
        num_steps: timed ones, after as many that are not.
        quotas: folder of the control group that each rank enters; empty enters none.
        load: file that gets the routing of all steps; empty writes none.
    """

    config: str
    num_sequences: int
    num_steps: int
    quotas: tuple[str, ...] = ()
    load: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFigures:
    """One rank's timed steps, in the mean.

    Attributes:
        parts: seconds by part; waiting for other ranks is in `dispatch`.
        expert_seconds: of each layer of each step, in order, as all ranks have them.
        rows: (token, expert) pairs computed.
        num_segments, num_overruns: of an emulated device, of all timed steps together.
        link_bytes: bytes sent, by link.
    """

    num_steps: int
    parts: dict[str, float]
    expert_seconds: tuple[float, ...]
    rows: float
    num_segments: int = 0
    num_overruns: int = 0
    link_bytes: dict[str, float] = field(default_factory=dict)

    @property
    def step_seconds(self) -> float:
        return sum(self.parts.values())


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=PoolJob)
    launch = launched_world()
    if job.quotas:
        enter(Path(job.quotas[launch.rank]))
    with LLM(job.config) as llm:
        _decode(llm, job)
        before, expert_seconds = llm.stats(), llm.note_expert_seconds()
        _decode(llm, job)
        figures = rank_figures(before, llm.stats(), expert_seconds)
        gathered = llm.gather(msgspec.json.encode(figures))
        load = llm.expert_load()
        if launch.rank == 0:
            if job.load:
                save(load, Path(job.load))
            print(json.dumps([msgspec.json.decode(data) for data in gathered]), flush=True)


def rank_figures(
    before: RankStats, after: RankStats, expert_seconds: Sequence[float]
) -> RankFigures:
    """What changed between two looks at a rank, by its steps."""
    steps = after.num_steps - before.num_steps
    return RankFigures(
        num_steps=steps,
        parts={
            part: (seconds - before.step_seconds.get(part, 0.0)) / steps
            for part, seconds in after.step_seconds.items()
        },
        expert_seconds=tuple(expert_seconds),
        rows=(after.num_expert_rows - before.num_expert_rows) / steps,
        num_segments=after.num_segments - before.num_segments,
        num_overruns=after.num_overruns - before.num_overruns,
        link_bytes={
            link: (count - before.link_bytes.get(link, 0)) / steps
            for link, count in after.link_bytes.items()
        },
    )


def _decode(llm: LLM, job: PoolJob) -> None:
    prompts = np.random.default_rng(7).integers(3, llm.vocab_size, (job.num_sequences, 1))
    sampling = SamplingParams(temperature=1.0, seed=1, max_tokens=job.num_steps, ignore_eos=True)
    llm.generate(prompts.tolist(), sampling)


if __name__ == "__main__":
    main()
