"""Counts where the router sends tokens, at their home and before replicas are chosen."""

from collections.abc import Sequence

import numpy as np
import torch

from moe_serve.messages import STEPS_PER_WINDOW, ExpertCounts


class ExpertCounter:
    """Rows that the tokens of this rank send to each expert, by windows of steps.

    Args:
        layers: the model's MoE layers, ascending.
    """

    def __init__(self, layers: Sequence[int], num_experts: int) -> None:
        self._row_of_layer = {layer: row for row, layer in enumerate(layers)}
        self._num_experts = num_experts
        self._counts_LE = np.zeros((len(layers), num_experts), np.int64)
        self._taken_LE = self._counts_LE.copy()
        self._before_step_LE = self._counts_LE.copy()
        self._num_steps = 0

    @property
    def totals(self) -> bytes:
        """counts_LE since the start: int64, little-endian."""
        return self._counts_LE.astype("<i8").tobytes()

    @property
    def is_window_over(self) -> bool:
        """The last step was the last of a window."""
        return self._num_steps > 0 and self._num_steps % STEPS_PER_WINDOW == 0

    def count(self, layer: int, ids_TK: torch.Tensor) -> None:
        """
        Args:
            ids_TK: global expert ids, on the host.
        """
        if ids_TK.numel():
            counts_E = np.bincount(ids_TK.numpy().ravel(), minlength=self._num_experts)
            self._counts_LE[self._row_of_layer[layer]] += counts_E

    def end_step(self) -> None:
        self._before_step_LE[:] = self._counts_LE
        self._num_steps += 1

    def drop_step(self) -> None:
        """What was counted since the last step ended is of one that will be computed again."""
        self._counts_LE[:] = self._before_step_LE

    def take(self) -> ExpertCounts | None:
        """What was counted since the last time, all in the window of the last step; None if nothing
        was. To be called at the end of each window at the latest."""
        new_LE = self._counts_LE - self._taken_LE
        if not new_LE.any():
            return None
        self._taken_LE += new_LE
        window = (self._num_steps - 1) // STEPS_PER_WINDOW
        return ExpertCounts(window=window, counts_LE=new_LE.astype("<i8").tobytes())
