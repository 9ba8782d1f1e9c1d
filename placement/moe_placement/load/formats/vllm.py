"""Expert load that vLLM recorded for its EPLB.

vLLM keeps it in `EplbModelState` (vllm/distributed/eplb/eplb_state.py; https://docs.vllm.ai/en/
v0.26.0/api/vllm/distributed/eplb/eplb_state/) and writes no file of its own. A dump here has two
of its fields, under their names: `expert_load_window`, rows of each physical expert in each of
the last steps (window, MoE layers, physical experts), which every rank counts for its own tokens,
and `physical_to_logical_map` (MoE layers, physical experts).
"""

from collections.abc import Sequence
from pathlib import Path

from moe_placement.load.formats.dump import counts, logical_counts, read_dump, to_load
from moe_placement.load.trace import ExpertLoad, Ints, LoadError


def read_vllm(
    paths: Sequence[Path], *, model: str, layers: Sequence[int] | None = None
) -> ExpertLoad:
    """Add up the dumps of all ranks, as .npz, JSON, or files of torch.save.

    Args:
        layers: the model's own numbers of its MoE layers, which the dump has not.

    Raises:
        LoadError: names the file and the key.
    """
    if not paths:
        raise LoadError("no dump of vLLM was named; give those of all ranks")
    windows = [_read(path) for path in paths]
    shapes = {window.shape for window in windows}
    if len(shapes) > 1:
        raise LoadError(f"the ranks' dumps differ in shape: {sorted(shapes)}")
    return to_load(sum(windows[1:], start=windows[0]), model=model, layers=layers)


def _read(path: Path) -> Ints:
    dump = read_dump(path)
    try:
        window_TLS = counts(dump, "expert_load_window", (3,))
        return logical_counts(window_TLS, counts(dump, "physical_to_logical_map", (2,)))
    except LoadError as error:
        raise LoadError(f"dump {path}: {error}") from error
