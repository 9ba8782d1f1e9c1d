"""What an engine on a GPU waits for, as JSON: `python gpu_session.py CHECKPOINT`, over `gpu_stub`.

Operators take the GPU longer than the host. By step: how often the host waited, and for how many
seconds the GPU is still busy then; the same again of an engine that waits for sampled tokens alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from engine_runs import engine, prompts_of

import moe_serve.step.engine
from moe_serve.types import SamplingParams

# Computed in four steps, only the last of which samples; two more decode.
PROMPT_TOKENS, TOKENS_PER_STEP, NEW_TOKENS = 100, 29, 3
GPU: Any = torch.cuda


def look(path: Path) -> dict[str, list[float]]:
    waits: list[float] = []
    pending: list[float] = []
    with engine(path, device="cuda", tokens_per_step=TOKENS_PER_STEP) as llm:
        inner: Any = llm._rank.engine
        step = inner.step

        def step_and_look(*arguments: Any) -> Any:
            before = GPU.num_waits()
            events = step(*arguments)
            pending.append(GPU.pending_seconds())
            waits.append(GPU.num_waits() - before)
            return events

        inner.step = step_and_look
        sampling = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
        llm.generate(prompts_of((PROMPT_TOKENS,)), sampling)
    return {"waits": waits, "pending": pending}


if __name__ == "__main__":
    checkpoint = Path(sys.argv[1])
    waiting = look(checkpoint)
    moe_serve.step.engine._wait_for = lambda device: None
    print(json.dumps([waiting, look(checkpoint)]))
