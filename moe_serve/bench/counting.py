"""What it costs to count where tokens go, of the step in which they are counted."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from moe_serve.bench.pool_ranks import run_ranks
from moe_serve.bench.pool_worker import PoolJob, RankFigures
from moe_serve.bench.table import Rows, target
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config

# As many experts as DeepSeek-V3 has and its tokens choose, each a thousandth as large: the steps of
# real models are longer, what is counted of a layer is the same.
_MODEL = {
    "hidden_size": 256,
    "moe_intermediate_size": 64,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "num_hidden_layers": 9,
}
_NUM_TOKENS = (1, 32, 256)
_PART = "counting"
_MOST_SHARE = 0.01


def counting(folder: Path, num_steps: int, num_tokens: Sequence[int] = _NUM_TOKENS) -> Rows:
    """A row for each number of tokens in a decode step, on one rank of this machine's processor.

    Raises:
        ConfigError: the rank did not end well.
    """
    model = folder / "model"
    write_checkpoint(model, demo_config() | _MODEL)
    measured = {}
    for number in num_tokens:
        config = _write_config(folder / f"counting-{number}.yaml", model, number)
        job = PoolJob(config=str(config), num_sequences=number, num_steps=num_steps)
        (measured[number],) = run_ranks(job, 1)
    return counting_rows(measured)


def counting_rows(measured: dict[int, RankFigures]) -> Rows:
    """
    Args:
        measured: by the number of tokens in a step.
    """
    layers = _MODEL["num_hidden_layers"] - demo_config()["first_k_dense_replace"]
    title = (
        f"counting of expert rows: {layers} MoE layers of {_MODEL['n_routed_experts']} narrow "
        f"experts, top {_MODEL['num_experts_per_tok']}, one rank, one thread"
    )
    rows, targets = [], []
    for number, figures in measured.items():
        seconds, step = figures.parts[_PART], figures.step_seconds
        row = {
            "of": title,
            "tokens of a step": number,
            "counting us": seconds * 1e6,
            "step ms": step * 1e3,
            "share of the step": seconds / step,
        }
        figure = f"share of a step of {number} tokens that is counting"
        rows.append(row)
        targets.append(target(figure, f"{figures.num_steps} steps", seconds / step, _MOST_SHARE))
    return [*rows, *targets]


def _write_config(path: Path, model: Path, num_sequences: int) -> Path:
    document = {
        "model": {"path": str(model), "name": "bench", "dtype": "float32"},
        "pools": [{"name": "host", "device": "cpu", "ranks": 1, "threads": 1}],
        "scheduler": {"max_tokens_per_step": num_sequences, "max_sequences": num_sequences},
        "cache": {"page_size": 16, "num_pages": 16 * num_sequences},
    }
    path.write_text(yaml.safe_dump(document))
    return path
