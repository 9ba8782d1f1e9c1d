"""One tenant among many that have nothing to do, beside the same model alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moe_serve.bench.slices_job import RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import SlicesRanks, serving
from moe_serve.bench.table import Row, Rows, target

_NUM_LOADED = 20
_NUM_LAYERS = 2
_MEMORY_MB = 96
# Runs of each of the two processes, which take turns.
_NUM_ROUNDS = 8
_RUN = 0.4
_MOST_LOSS = 2.0
_AMONG, _ALONE = f"1 of {_NUM_LOADED} loaded is active", "1 is loaded"


def idle(folder: Path, seconds: float) -> Rows:
    """A row for each of two processes; then the target.

    Args:
        seconds: of two and a half runs of each process.
    """
    seconds *= _RUN
    names = [f"dense-{number}" for number in range(_NUM_LOADED)]
    paths = write_models(folder, dict.fromkeys(names, _NUM_LAYERS))
    models = [
        BenchModel(name=name, path=path, percent=100 // _NUM_LOADED, memory_mb=_MEMORY_MB)
        for name, path in paths.items()
    ]
    with (
        serving(config_of(models), folder / "among") as among,
        serving(config_of(models[:1]), folder / "alone") as alone,
    ):
        rates = _take_turns({_AMONG: (among, _NUM_LOADED), _ALONE: (alone, 1)}, seconds)
    medians = {name: float(np.median(each)) for name, each in rates.items()}
    loss = 100 * (1 - medians[_AMONG] / medians[_ALONE])
    window = f"median of {_NUM_ROUNDS} runs of {seconds:g} s"
    rows = [_row(name, each, medians[_ALONE]) for name, each in rates.items()]
    return [*rows, target("slower than alone, percent", window, loss, _MOST_LOSS)]


def _take_turns(
    processes: dict[str, tuple[SlicesRanks, int]], seconds: float
) -> dict[str, list[float]]:
    """Tokens per second of each run, after one of each that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(1 + _NUM_ROUNDS):
        for name, (ranks, num_loaded) in processes.items():
            rates[name].append(_tokens_per_second(*ranks.run(_run(num_loaded, seconds))))
    return {name: each[1:] for name, each in rates.items()}


def _run(num_loaded: int, seconds: float) -> Run:
    stream = Stream(tenant=0, prompt_tokens=32, output_tokens=256, num_sequences=2)
    percents = dict.fromkeys(range(num_loaded), 100 / num_loaded)
    return Run(percents=percents, seconds=seconds, warm_up=0.2, streams=(stream,))


def _tokens_per_second(log: RankLog) -> float:
    times = np.concatenate([answer.times for answer in log.answers.values()])
    return int(((times >= log.first) & (times < log.last)).sum()) / (log.last - log.first)


def _row(name: str, rates: Sequence[float], alone: float) -> Row:
    return {
        "of": "idle tenants: the same model's speed, runs of two processes in turn",
        "process": name,
        "runs": len(rates),
        "tokens per second": float(np.median(rates)),
        "lowest": min(rates),
        "highest": max(rates),
        "of alone %": 100 * float(np.median(rates)) / alone,
    }
