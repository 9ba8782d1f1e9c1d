"""Single routed experts of a checkpoint, read a piece at a time beside what the rank computes.

Shape legend: D width, F expert width.
"""

from collections.abc import Generator

import torch
from moe_kernels.ops import Experts, Packed

from moe_serve.layers.linear import ExpertsLayer
from moe_serve.layers.moe import MoeLayer
from moe_serve.models.experts_model import ExpertsModel
from moe_serve.models.feed_forward import expert_template
from moe_serve.models.model import Model
from moe_serve.models.shape import MoeShape
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.convert import read_block_shape, read_numbers


class ExpertReader:
    """
    Args:
        op: of all routed experts of this rank.
        dtype: that weights are brought to before they are packed.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        op: Experts,
        shape: MoeShape,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._checkpoint = checkpoint
        self._op = op
        self._shape = shape
        self._device = device
        self._dtype = dtype
        self._blocks = read_block_shape(checkpoint.config)

    def read(self, layer: int, expert: int, piece_bytes: int) -> Generator[int, None, Packed]:
        """Yields bytes that were read, at most `piece_bytes` at once but for a row that has more,
        and before the last, which packs them all, what that will touch; returns one packed expert.

        Raises:
            CheckpointError, OSError: the checkpoint cannot be read any more.
        """
        names, width, hidden = self._shape.names, self._shape.width, self._shape.expert_width
        gate_up_2FD, down_DF = self._empty(2 * hidden, width), self._empty(width, hidden)
        gate_FD, up_FD = torch.split(gate_up_2FD, hidden)
        template = expert_template(layer, names)
        for name, target in ((names.gate, gate_FD), (names.up, up_FD), (names.down, down_DF)):
            yield from self._fill(target, template.format(expert=expert, name=name), piece_bytes)
        yield gate_up_2FD.nbytes + down_DF.nbytes
        return self._op.prepare(gate_up_2FD[None], down_DF[None])

    def close(self) -> None:
        """Let go of the files until the next read."""
        self._checkpoint.close()

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=self._dtype, device=self._device)

    def _fill(self, target: torch.Tensor, name: str, piece_bytes: int) -> Generator[int]:
        height = max(1, piece_bytes // target[0].nbytes)
        for first in range(0, len(target), height):
            before = self._checkpoint.bytes_read
            rows = slice(first, min(first + height, len(target)))
            target[rows].copy_(
                read_numbers(self._checkpoint, name, target.shape, self._blocks, rows)
            )
            yield self._checkpoint.bytes_read - before


def expert_layers(model: Model | ExpertsModel) -> dict[int, ExpertsLayer]:
    """This rank's routed experts, by the model's layer."""
    if isinstance(model, ExpertsModel):
        return dict(zip(model.shape.moe_layers, model.experts, strict=True))
    moe = (layer.feed_forward for layer in model.layers)
    return {each.layer: each.experts for each in moe if isinstance(each, MoeLayer)}
