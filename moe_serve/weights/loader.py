"""What the model files ask for their weights: named tensors, packed products, this rank's experts.

Shape legend: N width out, D width in, E experts here, F expert width.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from moe_comm.shard import ALONE, Shard
from moe_kernels.ops import Ops

from moe_serve.layers.linear import ExpertsLayer, LinearLayer
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.convert import read_block_shape, read_numbers


class WeightLoader:
    """Reads a checkpoint for one rank; what is not asked for is not read.

    Args:
        dtype: of weights and activations.
        local_experts: for each MoE layer, the expert in each of this rank's slots.
        progress: is told the bytes of each read.
        shard: this rank among those that share one copy of attention, dense and shared-expert
            weights and the vocabulary. The model files cut by it.

    Raises:
        UnsupportedError: the checkpoint is quantised in a way that is not read.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Ops,
        device: torch.device,
        dtype: torch.dtype,
        local_experts: Mapping[int, Sequence[int]],
        progress: Callable[[int], None] | None = None,
        shard: Shard = ALONE,
    ) -> None:
        self._checkpoint = checkpoint
        self.ops = ops
        self.device = device
        self.dtype = dtype
        self._local_experts = local_experts
        self._progress = progress
        self.shard = shard
        self._blocks = read_block_shape(checkpoint.config)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        rows: slice | None = None,
    ) -> torch.Tensor:
        """One tensor on the device, in `dtype` or the loader's.

        Args:
            shape: of the whole tensor.
            rows: the part of the first dimension to read; None reads all.

        Raises:
            CheckpointError: it is missing, misshapen or unreadable; so do all methods here.
        """
        height = _size(rows, shape[0])
        target = torch.empty(height, *shape[1:], dtype=dtype or self.dtype, device=self.device)
        self._read_into(target, name, shape, rows)
        return target

    def linear(
        self,
        names: str | Sequence[str],
        in_width: int,
        out_widths: int | Sequence[int],
        bias: bool = False,
        rows: Sequence[slice | None] = (),
        plain: bool = False,
    ) -> LinearLayer:
        """`NAME.weight` (and `NAME.bias`) of each name, one below the other, as one product.

        Args:
            out_widths: of the whole tensors.
            rows: the part of each one's rows to read; None, or no entry, reads all.
            plain: keep the loader's dtype, whatever the rank's weight format.
        """
        op = self.ops.plain_linear if plain else self.ops.linear
        names = [names] if isinstance(names, str) else list(names)
        out_widths = [out_widths] if isinstance(out_widths, int) else list(out_widths)
        parts = list(rows) or [None] * len(names)
        weight_ND = self._stack([f"{name}.weight" for name in names], out_widths, parts, in_width)
        packed = op.prepare(weight_ND)
        bias_N = None
        if bias:
            bias_N = self._stack([f"{name}.bias" for name in names], out_widths, parts)
        return LinearLayer(op, packed, bias_N)

    def linear_part(
        self, name: str, in_width: int, out_width: int, bias: bool = False
    ) -> LinearLayer:
        """This rank's term of a product whose input the shard's members divide: their answers'
        sum is the answer. The first member alone adds the bias."""
        columns = self.shard.of(in_width)
        weight_ND = self._empty(out_width, _size(columns, in_width))
        self._read_into(weight_ND, f"{name}.weight", (out_width, in_width), columns=columns)
        bias_N = None
        if bias and self.shard.index == 0:
            bias_N = self.tensor(f"{name}.bias", (out_width,))
        return LinearLayer(self.ops.linear, self.ops.linear.prepare(weight_ND), bias_N)

    def experts(
        self,
        layer: int,
        template: str,
        width: int,
        expert_width: int,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> ExpertsLayer:
        """This rank's experts of a layer, in slot order.

        Args:
            template: tensor name with fields {expert} and {name}.
            names: what the checkpoint calls gate, up and down.
        """
        experts = self._local_experts[layer]
        gate, up, down = names
        gate_up_E2FD = self._empty(len(experts), 2 * expert_width, width)
        down_EDF = self._empty(len(experts), width, expert_width)
        for slot, expert in enumerate(experts):
            gate_FD, up_FD = torch.split(gate_up_E2FD[slot], expert_width)
            self._read_into(gate_FD, template.format(expert=expert, name=gate))
            self._read_into(up_FD, template.format(expert=expert, name=up))
            self._read_into(down_EDF[slot], template.format(expert=expert, name=down))
        return ExpertsLayer(self.ops.experts, self.ops.experts.prepare(gate_up_E2FD, down_EDF))

    def _stack(
        self,
        names: Sequence[str],
        heights: Sequence[int],
        rows: Sequence[slice | None],
        *width: int,
    ) -> torch.Tensor:
        own_heights = [_size(part, height) for part, height in zip(rows, heights, strict=True)]
        whole = self._empty(sum(own_heights), *width)
        targets = torch.split(whole, own_heights)
        for target, name, height, part in zip(targets, names, heights, rows, strict=True):
            self._read_into(target, name, (height, *width), part)
        return whole

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=self.dtype, device=self.device)

    def _read_into(
        self,
        target: torch.Tensor,
        name: str,
        shape: Sequence[int] = (),
        rows: slice | None = None,
        columns: slice | None = None,
    ) -> None:
        before = self._checkpoint.bytes_read
        whole = shape or target.shape
        target.copy_(read_numbers(self._checkpoint, name, whole, self._blocks, rows, columns))
        if self._progress is not None:
            self._progress(self._checkpoint.bytes_read - before)


def _size(part: slice | None, whole: int) -> int:
    return len(range(whole)[part or slice(None)])
