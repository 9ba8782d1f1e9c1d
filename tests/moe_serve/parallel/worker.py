"""Ranks that build one engine after another, so that tests pay for their start once.

`python worker.py CONFIG SOCKET`, or the same under `mpirun -n N`; the config is for the meeting
alone. Each rank connects to the Unix socket, tells its number, and reads jobs from there, one line
of JSON each, until the other side closes; rank 0 answers in the same way.

A job has `config` (a file), `rounds` (each a list of requests that are generated together: `prompt`
and sampling fields; one engine runs all rounds) and perhaps a `fault`, see faults.py. The answer
has `rounds` (for each request its `tokens`, and as `bits` the exact hexadecimal log-probabilities
of each token and of the best ones) and `ranks` (what each rank read, holds and counted). A job with
`handover` is a case of sharing_runs.py, with what that holds besides.
"""

import json
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from faults import plant
from sharing_runs import hand_over

import moe_serve.load_rank
from moe_serve.bring_up import Meeting, meet
from moe_serve.config.load import load_config
from moe_serve.control.meeting.world import launched_world
from moe_serve.llm import LLM, Completion
from moe_serve.models.experts_model import ExpertsModel
from moe_serve.types import SamplingParams
from moe_serve.weights.checkpoint import Checkpoint

EXPERT = re.compile(r"\.experts\.\d+\.")


class CountingCheckpoint(Checkpoint):
    """Tells bytes of experts from the others; the counts are those of the newest checkpoint."""

    bytes_by_kind: Counter[str]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        CountingCheckpoint.bytes_by_kind = Counter()

    def read(self, name: str, shape: Sequence[int], *part: slice | None) -> torch.Tensor:
        before = self.bytes_read
        tensor = super().read(name, shape, *part)
        kind = "experts" if EXPERT.search(name) else "others"
        self.bytes_by_kind[kind] += self.bytes_read - before
        return tensor


def main() -> None:
    moe_serve.load_rank.Checkpoint = CountingCheckpoint  # type: ignore[misc]
    meeting = meet(load_config(Path(sys.argv[1])), launched_world())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[2])
        with connection.makefile("rw") as line:
            say(line, str(meeting.launch.rank))
            for job in line:
                answer = json.dumps(run(json.loads(job), meeting))
                if meeting.launch.rank == 0:
                    say(line, answer)
    meeting.close()


def say(line: TextIO, text: str) -> None:
    line.write(text + "\n")
    line.flush()


def run(job: dict[str, Any], meeting: Meeting) -> dict[str, Any]:
    if "handover" in job:
        return hand_over(job | job["handover"], meeting)
    with LLM(job["config"], meeting=meeting) as llm:
        if "fault" in job:
            plant(llm, **job["fault"])
        rounds = [[encode(each) for each in generate(llm, asked)] for asked in job["rounds"]]
        mine = json.dumps(report(llm)).encode()
        reports = [json.loads(text) for text in meeting.exchange.allgather_bytes(mine)]
    return {"rounds": rounds, "ranks": reports}


def generate(llm: LLM, requests: list[dict[str, Any]]) -> list[Completion]:
    prompts = [request.pop("prompt") for request in requests]
    return llm.generate(prompts, [SamplingParams(**request) for request in requests])


def encode(completion: Completion) -> dict[str, Any]:
    bits = [
        " ".join([own.hex(), *(f"{token}:{value.hex()}" for token, value in top)])
        for own, top in zip(completion.logprobs, completion.top_logprobs, strict=True)
    ]
    return {"tokens": completion.token_ids, "bits": bits}


def report(llm: LLM) -> dict[str, Any]:
    stats = llm.stats()
    return {
        "bytes_read": CountingCheckpoint.bytes_by_kind,
        "expert_memory": expert_memory(llm),
        "expert_rows": stats.num_expert_rows,
        "preemptions": stats.num_preemptions,
        "cached_tokens": stats.num_cached_tokens,
    }


def expert_memory(llm: LLM) -> int:
    """Bytes of the tensors that hold this rank's routed experts."""
    model: Any = llm._rank.engine._runner._model
    if isinstance(model, ExpertsModel):
        experts = list(model.experts)
    else:
        layers = [layer.feed_forward for layer in model.layers]
        experts = [layer.experts for layer in layers if hasattr(layer, "experts")]
    held = dict(memory(tensor) for layer in experts for tensor in tensors_in(layer.packed))
    return sum(held.values())


def memory(tensor: torch.Tensor) -> tuple[int, int]:
    """What tells one piece of memory from another, and its bytes."""
    if tensor.layout is not torch.strided:
        return id(tensor), tensor.numel() * tensor.element_size()
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def tensors_in(packed: Any) -> Iterator[torch.Tensor]:
    if isinstance(packed, torch.Tensor):
        yield packed
    elif isinstance(packed, tuple):
        for part in packed:
            yield from tensors_in(part)


if __name__ == "__main__":
    main()
