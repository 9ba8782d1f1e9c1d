"""Which experts each of some tokens is sent to; prints JSON: the tokens' counts of each layer.

`python -m moe_serve.bench.drift_worker CONFIG TOKEN...`, for a config of one rank.
"""

import json
import sys

import numpy as np

from moe_serve.llm import LLM
from moe_serve.types import SamplingParams

# Tokens attend to those before them, and so does their way through the layers.
_REPEATS = 16


def main() -> None:
    config, tokens = sys.argv[1], [int(word) for word in sys.argv[2:]]
    only_prompt = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    counts: list[list[list[int]]] = []
    with LLM(config) as llm:
        before = np.zeros(1, np.int64)
        for token in tokens:
            llm.generate([[token] * _REPEATS], only_prompt)
            now = llm.expert_load().counts_TLE[0]
            counts.append((now - before).tolist())
            before = now
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
