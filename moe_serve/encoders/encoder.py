"""From token ids to what an encoder makes of them: embeddings, or scores of pairs."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moe_serve.encoders.module import load_module
from moe_serve.encoders.pooling import embed, token_mask
from moe_serve.encoders.recipe import read_activation, read_embedding_recipe
from moe_serve.types import Request, Task

Finish = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The tensors of one step, int64 on the device, each input padded at its end."""

    ids_BL: torch.Tensor
    lengths_B: torch.Tensor
    types_BL: torch.Tensor | None


class Encoder:
    """A module with what follows it.

    Args:
        finish: from the module's output and the inputs' lengths to float32 [B, V].
    """

    def __init__(self, module: Any, device: torch.device, finish: Finish) -> None:
        self.module = module
        self._device = device
        self._finish = finish
        self._padding_id = int(module.config.pad_token_id or 0)
        takes_types = "token_type_ids" in inspect.signature(module.forward).parameters
        num_types = getattr(module.config, "type_vocab_size", None) or 0
        self._has_types = takes_types and num_types > 1

    def inputs(self, requests: Sequence[Request]) -> Inputs:
        lengths_B = torch.tensor([len(request.prompt_ids) for request in requests])
        longest = int(lengths_B.max())
        mask_BL = token_mask(lengths_B, longest)
        ids_BL = torch.full(mask_BL.shape, self._padding_id)
        ids_BL[mask_BL] = torch.tensor([id_ for each in requests for id_ in each.prompt_ids])
        types_BL = None
        if self._has_types:
            starts = [each.second_start or len(each.prompt_ids) for each in requests]
            starts_B1 = torch.tensor(starts).unsqueeze(-1)
            types_BL = ((torch.arange(longest) >= starts_B1) & mask_BL).long().to(self._device)
        return Inputs(ids_BL.to(self._device), lengths_B.to(self._device), types_BL)

    @torch.inference_mode()
    def run(self, inputs: Inputs) -> torch.Tensor:
        """What is made of each input, float32 [B, V] on the host."""
        more = {} if inputs.types_BL is None else {"token_type_ids": inputs.types_BL}
        mask_BL = token_mask(inputs.lengths_B, inputs.ids_BL.shape[1]).long()
        output = self.module(input_ids=inputs.ids_BL, attention_mask=mask_BL, **more)
        return self._finish(output, inputs.lengths_B).cpu()


def make_encoder(path: Path, task: Task, dtype: torch.dtype, device: torch.device) -> Encoder:
    """The encoder of a checkpoint directory; raises what the readers of its files raise."""
    finish = _scores(path) if task == "rerank" else _embeddings(path)
    return Encoder(load_module(path, task, dtype, device), device, finish)


def _embeddings(path: Path) -> Finish:
    recipe = read_embedding_recipe(path)
    return lambda output, lengths_B: embed(output.last_hidden_state, lengths_B, recipe)


def _scores(path: Path) -> Finish:
    activation = read_activation(path)

    def finish(output: Any, _lengths_B: torch.Tensor) -> torch.Tensor:
        logits_B1: torch.Tensor = output.logits.float()
        return logits_B1.sigmoid() if activation == "sigmoid" else logits_B1

    return finish
