"""DeepSeek's published FP8 layout, made from a plain checkpoint, and multiplied out again.

Written loop by loop, apart from the code under test.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from checkpoints import rewrite_json
from safetensors.torch import load_file, save_file

BLOCK = 128
LARGEST = 448.0
QUANTIZATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [BLOCK, BLOCK],
}


def make_fp8(path_in: Path, path_out: Path, num_shards: int = 1) -> Path:
    """Quantise the projections of attention, MLPs and experts; the rest stays as it is."""
    copy_all_but_weights(path_in, path_out)
    stored = {}
    for name, weight in load_tensors(path_in).items():
        stored[name] = weight
        if name.endswith("_proj.weight") or name.endswith("_proj_with_mqa.weight"):
            stored[name], stored[f"{name}_scale_inv"] = quantise(weight.float())
    save_tensors(stored, path_out, num_shards)
    rewrite_json(path_out / "config.json", lambda old: old | {"quantization_config": QUANTIZATION})
    return path_out


def undo_fp8(path_in: Path, path_out: Path) -> Path:
    """The same numbers in float32, for those who cannot read FP8."""
    copy_all_but_weights(path_in, path_out)
    stored = load_tensors(path_in)
    plain = {}
    for name, weight in stored.items():
        if not name.endswith("_scale_inv"):
            scale = stored.get(f"{name}_scale_inv")
            plain[name] = weight.float() if scale is None else dequantise(weight, scale)
    save_tensors(plain, path_out)

    def without_quantization(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key != "quantization_config"}

    rewrite_json(path_out / "config.json", without_quantization)
    return path_out


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    num_rows, num_columns = weight.shape
    values = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    scale = torch.empty(-(-num_rows // BLOCK), -(-num_columns // BLOCK))
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            place = block_at(row, column)
            scale[row, column] = weight[place].abs().max() / LARGEST
            values[place] = (weight[place] / scale[row, column]).to(values.dtype)
    return values, scale


def dequantise(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    weight = values.float()
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            weight[block_at(row, column)] *= scale[row, column].float()
    return weight


def block_at(row: int, column: int) -> tuple[slice, slice]:
    return slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, num_shards: int = 1) -> None:
    """With several shards, a weight and its scale lie in different ones."""
    if num_shards == 1:
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        return
    places: dict[str, str] = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::num_shards]}
        save_file(part, path / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def copy_all_but_weights(path_in: Path, path_out: Path) -> None:
    path_out.mkdir(parents=True, exist_ok=True)
    for file in path_in.iterdir():
        if "safetensors" not in file.name:
            shutil.copy(file, path_out)
