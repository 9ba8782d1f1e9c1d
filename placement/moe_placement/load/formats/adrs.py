"""Expert load of the EPLB task in the ADRS benchmarks: `expert-load.json`.

Recorded with vLLM (https://huggingface.co/datasets/abmfy/eplb-openevolve; read as that task's
evaluator does): `load_history` is a list of steps, each with `logical_expert_load` (MoE layers,
experts).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from moe_placement.load.formats.dump import counts, read_dump, to_load
from moe_placement.load.trace import ExpertLoad, LoadError


def read_adrs(path: Path, *, model: str, layers: Sequence[int] | None = None) -> ExpertLoad:
    """Read the whole history, a window for each step.

    Args:
        layers: the model's own numbers of its MoE layers, which the file has not.

    Raises:
        LoadError: names the file and the key.
    """
    history = read_dump(path).get("load_history")
    if not isinstance(history, list) or not history:
        raise LoadError(f"dump {path}: key 'load_history' must be a list with at least one step")
    if not all(isinstance(step, Mapping) for step in history):
        raise LoadError(f"dump {path}: 'load_history' must hold named values")
    try:
        windows = [counts(step, "logical_expert_load", (2,)) for step in history]
        if len({window.shape for window in windows}) > 1:
            raise LoadError("'logical_expert_load' changes its shape from step to step")
        return to_load(np.stack(windows), model=model, layers=layers)
    except LoadError as error:
        raise LoadError(f"dump {path}: {error}") from error
