"""Step tensors against a token-by-token reading of the batch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.step.inputs import build_inputs
from moe_serve.types import Batch, Chunk

PAGE_SIZE = 4


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    sizes = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=6))
    page, chunks = 0, []
    for number, (start, length) in enumerate(sizes):
        count = -(-(start + length) // PAGE_SIZE) + draw(st.integers(0, 1))
        pages = tuple(reversed(range(page, page + count)))
        page += count
        tokens = tuple(100 * number + offset for offset in range(length))
        chunks.append(Chunk(str(number), start, tokens, pages, draw(st.booleans())))
    return Batch(tuple(chunks))


@given(batches())
@settings(deadline=None)
def test_every_token_is_placed_and_in_one_group(batch: Batch) -> None:
    inputs = build_inputs(batch, PAGE_SIZE, torch.device("cpu"))
    tokens = [
        (chunk, chunk.start + offset, token)
        for chunk in batch.chunks
        for offset, token in enumerate(chunk.token_ids)
    ]
    assert inputs.token_ids_T.tolist() == [token for _, _, token in tokens]
    assert inputs.position_T.tolist() == [position for _, position, _ in tokens]
    assert inputs.paged.slot_T.tolist() == [
        chunk.page_ids[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
        for chunk, position, _ in tokens
    ]
    last = [row for row, (chunk, position, _) in enumerate(tokens) if is_last(chunk, position)]
    sampled = [row for row in last if tokens[row][0].samples]
    assert inputs.sample_S.tolist() == sampled
    grouped = []
    for group in inputs.paged.groups:
        for sequence in range(len(group.length_S)):
            rows = group.token_SQ[sequence][group.position_SQ[sequence] >= 0].tolist()
            positions = group.position_SQ[sequence][group.position_SQ[sequence] >= 0].tolist()
            chunk = tokens[rows[0]][0]
            assert positions == [tokens[row][1] for row in rows]
            assert (
                group.length_S[sequence]
                == chunk.start + len(chunk.token_ids)
                == len(rows) + (positions[0])
            )
            used = -(-int(group.length_S[sequence]) // PAGE_SIZE)
            assert tuple(group.pages_SP[sequence][:used].tolist()) == chunk.page_ids[:used]
            grouped += rows
        assert group.max_length == int(group.length_S.max())
        assert group.token_SQ.shape[1] < 2 * len(rows) or group.token_SQ.shape[1] == 1
    assert sorted(grouped) == list(range(len(tokens)))


def is_last(chunk: Chunk, position: int) -> bool:
    return position == chunk.start + len(chunk.token_ids) - 1
