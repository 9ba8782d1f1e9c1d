"""A weight loader whose experts are read when rows come for them, and dropped.

Shape legend: R rows, D width, E experts of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from moe_kernels.ops import Ops

from moe_serve.layers.linear import ExpertsLayer
from moe_serve.models.shape import ModelShape
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

_HOST = torch.device("cpu")


class OnDemandLoader(WeightLoader):
    """Everything in float32 on the host; a layer of experts takes the memory of one."""

    def __init__(self, checkpoint: Checkpoint, ops: Ops, shape: ModelShape) -> None:
        every = range(shape.num_experts)

        def held(*experts: int) -> dict[int, tuple[int, ...]]:
            return dict.fromkeys(shape.moe_layers, experts)

        super().__init__(checkpoint, ops, _HOST, torch.float32, held(*every))
        self._single = [
            WeightLoader(checkpoint, ops, _HOST, torch.float32, held(expert)) for expert in every
        ]

    def experts(
        self,
        layer: int,
        template: str,
        width: int,
        expert_width: int,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> ExpertsLayer:
        def read(expert: int) -> ExpertsLayer:
            return self._single[expert].experts(layer, template, width, expert_width, names)

        return ExpertsOnDemand(self.ops.experts, read)


@dataclass(slots=True)
class ExpertsOnDemand(ExpertsLayer):
    """Attributes:
    packed: reads the expert of a slot.
    """

    packed: Callable[[int], ExpertsLayer]

    def __call__(self, rows_RD: torch.Tensor, counts_E: torch.Tensor) -> torch.Tensor:
        y_RD = torch.empty_like(rows_RD)
        counts = counts_E.tolist()
        parts = zip(torch.split(rows_RD, counts), torch.split(y_RD, counts), strict=True)
        for slot, (rows, answer) in enumerate(parts):
            if len(rows):
                answer.copy_(self.packed(slot)(rows, torch.tensor([len(rows)])))
        return y_RD
