"""`moe_bench offline`: this engine beside transformers, and two ranks beside one, in one run."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moe_placement.model.spec import ModelSpec
from rich.console import Console
from rich.table import Table

from moe_serve.bench.load import Load
from moe_serve.bench.record import record, write
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.control.planning.deployment import read_spec
from moe_serve.errors import ConfigError
from moe_serve.weights.config_files import read_config

_ENGINE = "1 rank"
_TWO_RANKS = "2 ranks"
_PEER = "transformers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads in all")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts")
    parser.add_argument("--rounds", type=int, default=1, help="rounds through all contestants")
    parser.add_argument("--without", nargs="*", default=[], choices=[_PEER, _TWO_RANKS])
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(options: argparse.Namespace) -> int:
    spec = read_spec(read_config(Path(options.model)))
    load = Load(
        batch_sizes=tuple(options.batch),
        num_prompt_tokens=options.prompt_tokens,
        num_new_tokens=options.new_tokens,
        vocab_size=spec.vocab_size,
        repeats=options.repeats,
    )
    names = [name for name in (_PEER, _ENGINE, _TWO_RANKS) if name not in options.without]
    results: dict[str, Any] = {}
    for _ in range(options.rounds):
        for name in names:
            results[name] = _faster(results.get(name), _contestant(name, options, load))
    rows = _rows(results, _byte_ratios(spec, load.batch_sizes))
    _print(options.model, names, rows)
    if options.json:
        parameters = {"model": Path(options.model).name, "threads": options.threads, **asdict(load)}
        write(options.json, record("offline", parameters, rows))
    return 0


def _contestant(name: str, options: argparse.Namespace, load: Load) -> Any:
    ranks = 2 if name == _TWO_RANKS else 1
    command = [sys.executable, "-m", "moe_serve.bench.offline_worker"]
    command += ["transformers" if name == _PEER else "engine", "--model", options.model]
    command += ["--threads", str(options.threads // ranks), "--ranks", str(ranks)]
    command += ["--load", json.dumps(asdict(load))]
    environment = None
    if ranks > 1:
        command = mpirun_command(ranks, command)
        environment = mpirun_environment()
    print(f"running {name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        raise ConfigError(f"the contestant {name} ended with exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _faster(old: Any, new: Any) -> Any:
    """The better of two rounds, figure by figure."""
    if old is None:
        return new
    for kept, other in zip(old["rates"], new["rates"], strict=True):
        for figure in ("prefill", "decode"):
            kept[figure] = max(kept[figure], other[figure])
    if "outside_model" in old:
        pairs = zip(old["outside_model"], new["outside_model"], strict=True)
        old["outside_model"] = [min(pair) for pair in pairs]
    return old


def _byte_ratios(spec: ModelSpec, batch_sizes: Sequence[int]) -> dict[int, float]:
    """Decode speed of two ranks of one thread against one rank of two, were bytes all that counts.

    Both ranks read all weights that are not experts', each with half the bandwidth; the experts
    touched are split.
    """
    dense = sum(spec.parameters.values()) - spec.parameters["experts"]
    ratios = {}
    for batch_size in batch_sizes:
        share = spec.num_experts_per_token / spec.num_experts if spec.num_experts else 0.0
        touched = spec.parameters["experts"] * (1 - (1 - share) ** batch_size)
        ratios[batch_size] = (dense + touched) / (2 * dense + touched)
    return ratios


def _rows(results: dict[str, Any], byte_ratios: dict[int, float]) -> list[dict[str, Any]]:
    rows = []
    for index, rates in enumerate(results[_ENGINE]["rates"]):
        for phase in ("prefill", "decode"):
            row: dict[str, Any] = {"phase": phase, "batch_size": rates["batch_size"]}
            row |= {name: result["rates"][index][phase] for name, result in results.items()}
            if _PEER in row:
                row["ratio_to_transformers"] = row[_ENGINE] / row[_PEER]
            if _TWO_RANKS in row:
                row["two_ranks_ratio"] = row[_TWO_RANKS] / row[_ENGINE]
                if phase == "decode":
                    row["byte_ratio"] = byte_ratios[rates["batch_size"]]
                    row["share_of_byte_ratio"] = row["two_ranks_ratio"] / row["byte_ratio"]
            if phase == "decode":
                row["outside_model"] = results[_ENGINE]["outside_model"][index]
            rows.append(row)
    return rows


def _print(model: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=f"{Path(model).name}, tokens per second of the whole batch")
    headings = {
        "phase": "phase",
        "batch_size": "B",
        **{name: name for name in names},
        "ratio_to_transformers": "1 rank\n/ transf.",
        "two_ranks_ratio": "2 ranks\n/ 1 rank",
        "byte_ratio": "bytes\nallow",
        "share_of_byte_ratio": "share\nof that",
        "outside_model": "outside\nmodel",
    }
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(key, "")) for key in headings))
    Console(width=110).print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if value > 10 else f"{value:.3f}"
