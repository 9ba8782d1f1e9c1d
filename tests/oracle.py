"""What transformers says of a checkpoint, in float32: the reference of every exactness test."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from checkpoints import quiet_transformers
from transformers import AutoModelForCausalLM, DynamicCache

# (logits_V, tokens of the answer so far) -> the logits to choose from.
Adjust = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def unadjusted(logits_V: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    return logits_V


def load_oracle(path: Path) -> Any:
    quiet_transformers()
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """In models this small a second thread only waits, on a busy machine five times as long."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@one_thread()
@torch.no_grad()
def continue_greedily(
    model: Any, prompt: Sequence[int], num_new_tokens: int, adjust: Adjust = unadjusted
) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens after one prompt, end of sequence ignored, and each step's own logits."""
    cache = DynamicCache(config=model.config)
    ids = list(prompt)
    tokens: list[int] = []
    logits = []
    while len(tokens) < num_new_tokens:
        output = model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
        logits.append(output.logits[0, -1])
        tokens.append(int(adjust(logits[-1].clone(), tokens).argmax()))
        ids = tokens[-1:]
    return tokens, torch.stack(logits)


@one_thread()
@torch.no_grad()
def agrees_with(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether `tokens` are the model's greedy tokens after the prompt; one forward, no cache."""
    logits = model(torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :]
    return logits.argmax(-1).tolist() == list(tokens)


def oracle(
    path: Path, prompts: Sequence[Sequence[int]], num_new_tokens: int
) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Greedy tokens after each prompt, run alone in float32, and logits [num_new_tokens, vocab]."""
    model = load_oracle(path)
    results = [continue_greedily(model, prompt, num_new_tokens) for prompt in prompts]
    return [tokens for tokens, _ in results], [logits for _, logits in results]
