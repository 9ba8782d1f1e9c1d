"""What an engine on a GPU waits for, as JSON: `python gpu_session.py CHECKPOINT`, over `gpu_stub`.

Operators take the GPU longer than the host. Each list has the seconds that it is still busy for
after a step: first as the engine is, then as one that waits for sampled tokens alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from engine_runs import engine, prompts_of

import moe_serve.step.engine
from moe_serve.types import SamplingParams

# Computed in four steps, only the last of which samples.
PROMPT_TOKENS, TOKENS_PER_STEP, NEW_TOKENS = 100, 29, 3


def pending_seconds(path: Path) -> list[float]:
    left = []
    with engine(path, device="cuda", tokens_per_step=TOKENS_PER_STEP) as llm:
        inner: Any = llm._rank.engine
        step = inner.step

        def step_and_look(*arguments: Any) -> Any:
            events = step(*arguments)
            left.append(torch.cuda.pending_seconds())  # type: ignore[attr-defined]
            return events

        inner.step = step_and_look
        sampling = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
        llm.generate(prompts_of((PROMPT_TOKENS,)), sampling)
    return left


if __name__ == "__main__":
    waiting = pending_seconds(Path(sys.argv[1]))
    moe_serve.step.engine._wait_for = lambda device: None
    print(json.dumps([waiting, pending_seconds(Path(sys.argv[1]))]))
