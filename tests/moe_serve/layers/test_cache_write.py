"""What an overflowing sequence leaves in its pages does not reach their next owner."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_runs import GREEDY, engine, prompts_of, tokens_of

from moe_serve.layers.cache_write import write_finite


def test_rows_go_to_their_slots_and_are_finite() -> None:
    pages_PSd = torch.zeros(3, 2, 4)
    rows_Td = torch.arange(8.0).view(2, 4)
    rows_Td[1, 1:] = torch.tensor([float("-inf"), float("inf"), float("nan")])
    write_finite(pages_PSd, torch.tensor([5, 2]), rows_Td)
    assert pages_PSd[2, 1].tolist() == [0, 1, 2, 3]
    assert pages_PSd[1, 0].tolist() == [4, 0, 0, 0]
    assert int((pages_PSd != 0).sum()) == 4


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe"])
def test_a_sequence_of_nans_does_not_spoil_the_next(
    family: str, checkpoint: Callable[..., Path]
) -> None:
    with engine(checkpoint(family), num_pages=16) as llm:
        expected = tokens_of(llm.generate(prompts_of([20, 5]), GREEDY))
        embedding_VD = llm._rank.engine._runner._model.embedding.rows_vD
        kept = embedding_VD.clone()
        with torch.inference_mode():
            embedding_VD.fill_(float("nan"))
        llm.generate(prompts_of([90, 90], seed=3), GREEDY)
        with torch.inference_mode():
            embedding_VD.copy_(kept)
        assert tokens_of(llm.generate(prompts_of([20, 5]), GREEDY)) == expected
