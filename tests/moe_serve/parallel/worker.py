"""Ranks that build one engine after another, so that a test pays their start once.

`python worker.py` or `mpirun -n N python worker.py`. Rank 0 reads jobs from stdin and answers on
stdout, a line of JSON each; the end of stdin ends all ranks.

A job has `config` (a config file), `rounds` (each a list of requests, with `prompt` and sampling
fields, generated together; one round after the other on one engine) and perhaps a `fault`.
The answer has `rounds` (for each request `tokens`, and `bits`: token ids and log-probabilities,
chosen first, as exact hexadecimal floats) and `ranks` (counters and bytes of each rank).
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import moe_serve.build
import torch
from faults import plant
from moe_serve.bring_up import Meeting, meet
from moe_serve.config.load import load_config
from moe_serve.control.world import launched_world
from moe_serve.llm import LLM, Completion
from moe_serve.types import SamplingParams
from moe_serve.weights.checkpoint import Checkpoint

EXPERT = re.compile(r"\.experts\.\d+\.")


class CountingCheckpoint(Checkpoint):
    """Tells bytes of experts from the others; the counts are the newest checkpoint's."""

    num_bytes: Counter[str]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        type(self).num_bytes = Counter()

    def read(self, name: str, shape: Sequence[int], rows: slice | None = None) -> torch.Tensor:
        before = self.bytes_read
        tensor = super().read(name, shape, rows)
        kind = "experts" if EXPERT.search(name) else "others"
        self.num_bytes[kind] += self.bytes_read - before
        return tensor


def main() -> None:
    meeting = None
    for line in sys.stdin if launched_world().rank == 0 else relayed():
        job = json.loads(line)
        meeting = meeting or meet(load_config(job["config"]), launched_world())
