"""Runs the model over a batch: ints in, logits out."""

from collections.abc import Callable

import torch
from moe_comm.dispatcher import Dispatcher
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.local import LocalExchange
from moe_kernels.ops import Ops

from moe_serve.layers.context import ForwardContext, LayerCache
from moe_serve.step.handover import HandoverPart, NoHandover
from moe_serve.step.inputs import build_inputs
from moe_serve.step.share import share_batch
from moe_serve.step.timing import Timer
from moe_serve.types import Batch


class Runner:
    """One rank's model with its cache; every rank of the EP group runs the same steps.

    Args:
        model: gives logits_SV.
        attention: the ranks that share one copy of the attention weights, the leader first; None
            is this rank alone.
    """

    def __init__(
        self,
        model: Callable[[ForwardContext], torch.Tensor],
        caches: tuple[LayerCache, ...],
        dispatcher: Dispatcher,
        ops: Ops,
        page_size: int,
        device: torch.device,
        timer: Timer,
        attention: Exchange | None = None,
    ) -> None:
        self._model = model
        self._caches = caches
        self._dispatcher = dispatcher
        self._ops = ops
        self._page_size = page_size
        self._device = device
        self._timer = timer
        self._attention = attention or LocalExchange()

    def rebind(self, attention: Exchange) -> None:
        """Share attention through another exchange from the next step on."""
        self._attention = attention

    @torch.inference_mode()
    def run(self, batch: Batch, handover: HandoverPart | None = None) -> torch.Tensor:
        """Logits (float32) of each sampling chunk's last token, in the batch's order.

        Args:
            batch: the leader's counts, on all ranks that share its attention.
            handover: is told of each layer whose keys and values are in the caches.
        """
        handover = handover or NoHandover()
        batch, letters = share_batch(self._attention, batch, handover.letter())
        handover.share(batch, letters)
        inputs = build_inputs(batch, self._page_size, self._device)
        self._timer.lap("inputs")
        self._timer.start_model(batch)
        context = ForwardContext(
            token_ids_T=inputs.token_ids_T,
            position_T=inputs.position_T,
            keys_T=inputs.keys_T,
            sample_S=inputs.sample_S,
            paged=inputs.paged,
            caches=self._caches,
            dispatcher=self._dispatcher,
            ops=self._ops,
            attention=self._attention,
            after_layer=handover.after_layer,
        )
        logits_SV = self._model(context)
        self._timer.end_attention(None)
        return logits_SV
