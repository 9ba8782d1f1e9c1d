"""Expert load that SGLang's expert distribution recorder wrote.

The recorder (python/sglang/srt/eplb/expert_distribution.py) saves with torch.save. In mode `stat`
one file of rank 0 has `logical_count` (steps, layers, experts), summed over ranks; the same key in
JSON, with or without steps, is what `--init-expert-location` takes. In modes `per_pass` and
`per_token` each rank's file has `records`, each with `forward_pass_id` and
`global_physical_count` (layers, physical experts), and `last_physical_to_logical_map`. Layers are
all of the model; the dense ones among them have no counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_placement.load.formats.dump import counts, logical_counts, read_dump, to_load
from moe_placement.load.trace import ExpertLoad, Ints, LoadError


def read_sglang(paths: Sequence[Path], *, model: str) -> ExpertLoad:
    """Read the file of mode `stat`, or add up those of all ranks in the other modes.

    Raises:
        LoadError: names the file and the key.
    """
    if not paths:
        raise LoadError("no dump of SGLang was named; give one, or those of all ranks")
    passes: dict[int, Ints] = {}
    for path in paths:
        dump = read_dump(path)
        try:
            found = _passes(dump)
        except LoadError as error:
            raise LoadError(f"dump {path}: {error}") from error
        for number, counts_LE in found.items():
            passes[number] = passes[number] + counts_LE if number in passes else counts_LE
    shapes = {counts_LE.shape for counts_LE in passes.values()}
    if len(shapes) != 1:
        raise LoadError(f"forward passes have counts of shapes {sorted(shapes)}; they must be one")
    counts_TLE = np.stack([passes[number] for number in sorted(passes)])
    layers = np.flatnonzero(counts_TLE.any(axis=(0, 2)))
    return to_load(counts_TLE[:, layers], model=model, layers=layers.tolist())


def _passes(dump: Mapping[str, Any]) -> dict[int, Ints]:
    """Counts of each forward pass by its number."""
    if "records" not in dump:
        counts_XLE = counts(dump, "logical_count", (2, 3))
        counts_TLE = counts_XLE.reshape(-1, *counts_XLE.shape[-2:])
        return dict(enumerate(counts_TLE))
    map_LS = counts(dump, "last_physical_to_logical_map", (2,))
    passes: dict[int, Ints] = {}
    records = dump["records"]
    if not isinstance(records, list):
        raise LoadError(f"key 'records' is a {type(records).__name__}; it must be a list")
    for record in records:
        number = record.get("forward_pass_id") if isinstance(record, Mapping) else None
        if not isinstance(number, int):
            raise LoadError("key 'records' holds one without a whole 'forward_pass_id'")
        physical_LS = counts(record, "global_physical_count", (2,))
        logical_LE = logical_counts(physical_LS[None], map_LS)[0]
        passes[number] = passes[number] + logical_LE if number in passes else logical_LE
    return passes
