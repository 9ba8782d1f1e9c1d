"""Runs the model over a batch: ints in, logits out."""

import torch
from moe_comm.dispatcher import Dispatcher
from moe_kernels.ops import Ops

from moe_serve.layers.context import ForwardContext, LayerCache
from moe_serve.models.model import Model
from moe_serve.step.inputs import build_inputs
from moe_serve.step.timing import Timer
from moe_serve.types import Batch


class Runner:
    """One rank's model with its cache; every rank of the EP group runs the same steps."""

    def __init__(
        self,
        model: Model,
        caches: tuple[LayerCache, ...],
        dispatcher: Dispatcher,
        ops: Ops,
        page_size: int,
        device: torch.device,
        timer: Timer,
    ) -> None:
        self._model = model
        self._caches = caches
        self._dispatcher = dispatcher
        self._ops = ops
        self._page_size = page_size
        self._device = device
        self._timer = timer

    @torch.inference_mode()
    def run(self, batch: Batch) -> torch.Tensor:
        """Logits (float32) of each sampling chunk's last token, in the batch's order."""
        inputs = build_inputs(batch, self._page_size, self._device)
        self._timer.lap("inputs")
        context = ForwardContext(
            token_ids_T=inputs.token_ids_T,
            position_T=inputs.position_T,
            keys_T=inputs.keys_T,
            sample_S=inputs.sample_S,
            paged=inputs.paged,
            caches=self._caches,
            dispatcher=self._dispatcher,
            ops=self._ops,
        )
        logits_SV = self._model(context)
        self._timer.lap("dense")
        return logits_SV
