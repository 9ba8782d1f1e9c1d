"""One contestant of the offline benchmark, in a process (or an mpirun) of its own; prints JSON."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moe_serve.bench.load import Generate, Load, Rates, measure
from moe_serve.huge_pages import ask_for_huge_pages

if TYPE_CHECKING:
    from moe_serve.llm import LLM

_MODEL_PARTS = ("dense", "dispatch", "experts")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=["engine", "transformers"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--load", required=True, help="a Load as JSON")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    fields = json.loads(options.load)
    load = Load(**{**fields, "batch_sizes": tuple(fields["batch_sizes"])})
    run = _engine if options.contestant == "engine" else _transformers
    print(json.dumps(run(options, load)), flush=True)


def _engine(options: argparse.Namespace, load: Load) -> Any:
    ask_for_huge_pages()
    from moe_serve.config.tree import CacheConfig, Config, ModelConfig, PoolConfig
    from moe_serve.llm import LLM
    from moe_serve.types import SamplingParams

    tokens = max(load.batch_sizes) * (load.num_prompt_tokens + load.num_new_tokens + 65)
    config = Config(
        models=(ModelConfig(path=options.model),),
        pools=(
            PoolConfig(name="host", device="cpu", ranks=options.ranks, threads=options.threads),
        ),
        cache=CacheConfig(page_size=64, num_pages=tokens // 64 + 1, prefix=False),
    )
    with LLM(config) as llm:

        def generate(prompts: Sequence[list[int]], new: int) -> None:
            llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True))

        rates = measure(load, generate)
        return _result(
            rates, outside_model=[_outside(llm, load, generate, b) for b in load.batch_sizes]
        )


def _outside(llm: "LLM", load: Load, generate: Generate, batch_size: int) -> float:
    """Share of the seconds of decoding that are not the model's own: what schedules, batches,
    samples and waits; the prompts' step is left out."""
    prompts = load.prompts(batch_size, 2 * load.repeats + 1)
    generate(prompts, 1)
    before, started = llm.stats().step_seconds, time.perf_counter()
    generate(prompts, 1)
    between, middle = llm.stats().step_seconds, time.perf_counter()
    generate(prompts, 1 + load.num_new_tokens)
    after, ended = llm.stats().step_seconds, time.perf_counter()

    def model(newer: dict[str, float], older: dict[str, float]) -> float:
        return sum(newer[part] - older[part] for part in _MODEL_PARTS)

    decode = (ended - middle) - (middle - started)
    return 1 - (model(after, between) - model(between, before)) / decode


def _transformers(options: argparse.Namespace, load: Load) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto")
    model.generation_config.eos_token_id = None

    def generate(prompts: Sequence[list[int]], new: int) -> None:
        input_ids = torch.tensor(prompts)
        model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )

    with torch.inference_mode():
        return _result(measure(load, generate))


def _result(rates: Sequence[Rates], **more: Any) -> Any:
    return {"rates": [asdict(rate) for rate in rates], **more}


if __name__ == "__main__":
    main()
