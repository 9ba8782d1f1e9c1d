"""Counts where the router sends tokens, at their home and before replicas are chosen.

Shapes: L MoE layers, E experts, T tokens here, K experts chosen per token.
"""

from collections.abc import Sequence

import numpy as np
import torch

from moe_serve.messages import STEPS_PER_WINDOW, ExpertCounts

# Of steps with few tokens, layers are counted together; what waits for that stays small.
_MOST_WAITING_IDS = 1 << 16


class ExpertCounter:
    """Rows that the tokens of this rank send to each expert, by windows of steps.

    Args:
        layers: the model's MoE layers, ascending.
    """

    def __init__(self, layers: Sequence[int], num_experts: int) -> None:
        self._row_of_layer = {layer: row for row, layer in enumerate(layers)}
        self._waiting: list[torch.Tensor] = []
        self._waiting_rows: list[int] = []
        self._num_waiting = 0
        self._counts_LE = np.zeros((len(layers), num_experts), np.int64)
        self._taken_LE = self._counts_LE.copy()
        self._before_step_LE = self._counts_LE.copy()
        self._num_steps = 0

    @property
    def totals(self) -> bytes:
        """counts_LE since the start: int64, little-endian."""
        self._add_waiting()
        return self._counts_LE.astype("<i8").tobytes()

    @property
    def is_window_over(self) -> bool:
        """The last step was the last of a window."""
        return self._num_steps > 0 and self._num_steps % STEPS_PER_WINDOW == 0

    def count(self, layer: int, ids_TK: torch.Tensor) -> None:
        """
        Args:
            ids_TK: global expert ids, on the host; not to be changed until the step's end.
        """
        row = self._row_of_layer[layer]
        self._waiting.append(ids_TK)
        self._waiting_rows.append(row)
        self._num_waiting += ids_TK.numel()
        # At the last layer, so that all of it is done while the step is computed.
        if row == len(self._counts_LE) - 1 or self._num_waiting > _MOST_WAITING_IDS:
            self._add_waiting()

    def end_step(self) -> None:
        self._add_waiting()
        self._before_step_LE[:] = self._counts_LE
        self._num_steps += 1

    def drop_step(self) -> None:
        """What was counted since the last step ended is of one that will be computed again."""
        self._forget_waiting()
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

    def _add_waiting(self) -> None:
        if self._num_waiting:
            num_experts = self._counts_LE.shape[1]
            first_of_row = np.multiply(self._waiting_rows, num_experts)
            ids_RK = torch.cat(self._waiting).numpy()
            ids_RK = ids_RK + np.repeat(first_of_row, [len(ids) for ids in self._waiting])[:, None]
            counts = np.bincount(ids_RK.reshape(-1), minlength=self._counts_LE.size)
            self._counts_LE += counts.reshape(self._counts_LE.shape)
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_rows.clear()
        self._num_waiting = 0
