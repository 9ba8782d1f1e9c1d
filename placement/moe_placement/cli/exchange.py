"""Files of other engines: their records of expert load in, placements for them out.

Written `KIND:FILE`; a load without a kind is a trace of our own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from moe_placement.cli.parser import UsageError
from moe_placement.load.formats.adrs import read_adrs
from moe_placement.load.formats.eplb_arrays import write_eplb_arrays
from moe_placement.load.formats.sglang import read_sglang
from moe_placement.load.formats.tensorrt_llm import write_load_balancer
from moe_placement.load.formats.vllm import read_vllm
from moe_placement.load.formats.vllm_ascend import write_expert_map
from moe_placement.load.trace import ExpertLoad
from moe_placement.load.trace_file import load as load_trace
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan

WRITERS: Mapping[str, Callable[[Path, Mapping[int, LayerPlan]], str]] = MappingProxyType(
    {
        "eplb": write_eplb_arrays,
        "tensorrt-llm": write_load_balancer,
        "vllm-ascend": write_expert_map,
    }
)
LOAD_KINDS = ("adrs", "sglang", "vllm")


@dataclass(frozen=True, slots=True)
class Export:
    """A placement file for another engine."""

    kind: str
    path: Path


def read_export(text: str) -> Export:
    """The value of --export; UsageError unless it is `KIND:FILE` of a known kind."""
    kind, colon, path = text.partition(":")
    if not colon or not path or kind not in WRITERS:
        raise UsageError(f"--export {text}: write KIND:FILE; the kinds are {', '.join(WRITERS)}")
    return Export(kind, Path(path))


def read_any_load(text: str, spec: ModelSpec, model: str) -> ExpertLoad:
    """A trace of our own, or other engines' dumps of all ranks: `vllm:rank0.npz,rank1.npz`.

    Raises:
        LoadError: a file that cannot be read, or is not of its kind.
        UsageError: several files where there can be one.
    """
    kind, _, names = text.partition(":")
    if kind not in LOAD_KINDS:
        return load_trace(Path(text))
    paths = [Path(name) for name in names.split(",")]
    if kind == "vllm":
        return read_vllm(paths, model=model, layers=spec.moe_layers)
    if kind == "sglang":
        return read_sglang(paths, model=model)
    if len(paths) > 1:
        raise UsageError(f"--load {text}: {kind} has one file; give one")
    return read_adrs(paths[0], model=model, layers=spec.moe_layers)


def write_export(export: Export, plan: Plan) -> str:
    """Write the placement; what the format cannot say, empty where nothing is lost.

    Raises:
        UsageError: the plan has several EP groups.
        PlanError: ranks hold unequal numbers of experts.
    """
    num_groups = len(plan.ep_groups())
    if num_groups != 1:
        raise UsageError(
            f"--export {export.kind}:{export.path}: the plan has {num_groups} EP groups, and the "
            "file holds one"
        )
    return WRITERS[export.kind](export.path, plan.layers)
