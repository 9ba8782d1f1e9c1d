"""A tenant that asks for ever more memory, beside one whose answers it must not change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from moe_placement.memory.rank_weights import cache_elements

from moe_serve.bench.slices_job import MemorySample, RankLog, Run, Stream
from moe_serve.bench.slices_models import BenchModel, config_of, write_models
from moe_serve.bench.slices_ranks import serving
from moe_serve.bench.table import Row, Rows, target
from moe_serve.control.planning.deployment import read_spec
from moe_serve.schedule.ledger import CACHE
from moe_serve.tenancy import WEIGHTS, WORKING_SPACE
from moe_serve.weights.config_files import read_config

_LAYERS = {"steady": 2, "greedy": 6}
# Large caches of a narrow model are soon full.
_FIELDS = {
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 256,
}
_STEADY, _GREEDY = 0, 1
_MIB = 1 << 20
_MEMORY = {_STEADY: 64 * _MIB, _GREEDY: 256 * _MIB}
_PERCENTS = {_STEADY: 20.0, _GREEDY: 80.0}
_MAX_STEP, _MAX_TOKENS = 0.5, 32
# What is taken and not written yet, of the last page of each sequence, is soon written.
_PAGE_SIZE = 4
# In which steps touch their working space for the first time.
_FIRST_SECONDS = 3.0
_ELEMENT_BYTES = 4
_PARTS = (WEIGHTS, WORKING_SPACE, CACHE)
_MOST_DIFFERENCE = 2.0
_ANSWERING = Stream(tenant=_STEADY, prompt_tokens=48, output_tokens=96)
# More than there is room for, each of them growing.
_ASKING = Stream(tenant=_GREEDY, prompt_tokens=24, output_tokens=224, num_sequences=64)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The steady tenant alone, and beside one of a mode that asks for ever more."""

    mode: str
    alone: RankLog
    beside: RankLog
    page_bytes: int

    def held_rows(self) -> Rows:
        runs = (("alone", _STEADY, self.alone), ("beside", _STEADY, self.beside))
        return [self._held_row(*run) for run in (*runs, ("beside", _GREEDY, self.beside))]

    def _held_row(self, run: str, tenant: int, log: RankLog) -> Row:
        most = log.most_held[tenant]
        left = _left(log, tenant)
        return {
            "of": "the most that tenants held, in bytes, looked at behind every step",
            "greedy is": self.mode,
            "run": run,
            "tenant": list(_LAYERS)[tenant],
            "slice": _MEMORY[tenant],
            **{part.replace("_", " "): most.get(part, 0) for part in _PARTS},
            "left": left,
            "in pages": left / self.page_bytes,
            "preemptions": log.num_preemptions[tenant],
        }

    def process_rows(self) -> Rows:
        runs = {"alone": self.alone, "beside": self.beside}
        return [self._process_row(name, log) for name, log in runs.items()]

    def _process_row(self, run: str, log: RankLog) -> Row:
        sample = _largest(log)
        return {
            "of": "ledger and process, in bytes, when tenants held most",
            "greedy is": self.mode,
            "run": run,
            "before any model": log.base,
            **{part.replace("_", " "): _held(sample, part) for part in _PARTS},
            "ledger": log.base + _held(sample),
            "process": sample.resident,
            "difference %": _difference(log, sample),
            "least %": min(_difference(log, each) for each in log.samples),
            "most %": max(_difference(log, each) for each in log.samples),
        }

    def targets(self, seconds: float) -> Rows:
        window = f"behind every step of {seconds:g} s or more"
        compared, differing = compare_answers(self.alone, self.beside, _STEADY)
        tokens = f"of {compared} tokens beside a {self.mode} one, that differ from those alone"
        found = [target(tokens, window, differing, 0)]
        if self.mode == "hard":
            left = _left(self.beside, _GREEDY) / self.page_bytes
            figure = f"pages of {self.page_bytes >> 10} KiB that a hard tenant held"
            found.append(target(f"{figure} above its slice", window, max(0.0, -left), 0))
            found.append(target(f"{figure} less than its slice", window, left, 1))
        differences = [_difference(self.beside, each) for each in self.beside.samples]
        figures = {
            "ledger and process differ, held most": abs(
                _difference(self.beside, _largest(self.beside))
            ),
            "process above its ledger, at any time": max(0.0, *differences),
            "what cache pages take, ledger and process differ": _growth_difference(self.beside),
        }
        found += [
            target(f"{figure}, {self.mode}, percent", window, each, _MOST_DIFFERENCE)
            for figure, each in figures.items()
        ]
        return found


def memory(folder: Path, seconds: float) -> Rows:
    """A row for each run and tenant; then ledger and process; then the targets."""
    paths = write_models(folder, _LAYERS, **_FIELDS)
    pairs = [_pair(mode, paths, folder / mode, seconds) for mode in ("hard", "share")]
    return [
        *(row for pair in pairs for row in pair.held_rows()),
        *(row for pair in pairs for row in pair.process_rows()),
        *(row for pair in pairs for row in pair.targets(seconds)),
    ]


def _pair(mode: str, paths: Mapping[str, Path], folder: Path, seconds: float) -> _Pair:
    models = [
        BenchModel(
            name=name,
            path=path,
            percent=50,
            memory_mb=_MEMORY[tenant] // _MIB,
            mode=mode if tenant == _GREEDY else "share",
        )
        for tenant, (name, path) in enumerate(paths.items())
    ]
    config = config_of(
        models,
        max_step=_MAX_STEP,
        max_tokens=_MAX_TOKENS,
        max_sequences=_ASKING.num_sequences,
        page_size=_PAGE_SIZE,
        deterministic=True,
    )
    both = Run(percents=_PERCENTS, seconds=_FIRST_SECONDS, streams=(_ANSWERING, _ASKING))
    alone = Run(percents={_STEADY: 50}, seconds=seconds, streams=(_ANSWERING,), watches_memory=True)
    beside = replace(both, seconds=seconds, watches_memory=True, waits_for="preemption")
    with serving(config, folder) as ranks:
        ranks.run(both)
        (alone_log,), (beside_log,) = ranks.run(alone), ranks.run(beside)
    page_bytes = _PAGE_SIZE * cache_elements(read_spec(read_config(paths["greedy"])), 1)
    return _Pair(mode, alone_log, beside_log, page_bytes * _ELEMENT_BYTES)


def compare_answers(one: RankLog, other: RankLog, tenant: int) -> tuple[int, int]:
    """Tokens of the same requests, as far as both runs came -> how many, how many differ."""
    pairs = [
        pair
        for name, answer in one.answers.items()
        if answer.tenant == tenant and name in other.answers
        for pair in zip(answer.token_ids, other.answers[name].token_ids, strict=False)
    ]
    return len(pairs), sum(first != second for first, second in pairs)


def _left(log: RankLog, tenant: int) -> int:
    """Bytes of its slice that a tenant never held."""
    return _MEMORY[tenant] - sum(log.most_held[tenant].values())


def _largest(log: RankLog) -> MemorySample:
    return max(log.samples, key=_held)


def _held(sample: MemorySample, part: str = "") -> int:
    """Bytes that all tenants hold together, of one part or of all."""
    if not part:
        return sum(_held(sample, each) for each in _PARTS)
    held = [parts.get(part, 0) for parts in sample.ledger.values()]
    # In which one has its step at a time.
    return max(held, default=0) if part == WORKING_SPACE else sum(held)


def _difference(log: RankLog, sample: MemorySample) -> float:
    """Percent of the ledger; what the process had before any model is a line of it."""
    return 100 * (sample.resident / (log.base + _held(sample)) - 1)


def _growth_difference(log: RankLog) -> float:
    """Percent by which the process grows by more or less than a byte for each that the ledger
    gives to cache pages: the slope of a line through all samples."""
    ledger = [_held(sample) for sample in log.samples]
    slope = np.polyfit(ledger, [sample.resident for sample in log.samples], 1)[0]
    return 100 * abs(float(slope) - 1)
