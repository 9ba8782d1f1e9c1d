"""One step while it is put together and computed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from moe_serve.schedule.sequence import Sequence
from moe_serve.types import Batch, Chunk, SampledToken, StepOutput


@dataclass(slots=True)
class StepPlan:
    """Chunks and the sequences they belong to, within a budget of tokens."""

    budget: int
    sequences: list[Sequence] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    def add(self, sequence: Sequence) -> None:
        """Add as many of the sequence's uncomputed tokens as the budget leaves."""
        start = sequence.num_computed
        token_ids = tuple(sequence.token_ids[start : start + self.budget])
        samples = sequence.samples and start + len(token_ids) == len(sequence.token_ids)
        self.budget -= len(token_ids)
        self.sequences.append(sequence)
        self.chunks.append(Chunk(sequence.request_id, start, token_ids, sequence.page_ids, samples))

    def batch(self) -> Batch:
        return Batch(tuple(self.chunks))

    def results(self, output: StepOutput) -> Iterator[tuple[Sequence, Chunk, SampledToken | None]]:
        """Each chunk with its sequence and the token it sampled, if it samples."""
        num_sampling = sum([chunk.samples for chunk in self.chunks])
        assert len(output.tokens) == num_sampling, (
            f"{len(output.tokens)} tokens came for {num_sampling} sampling chunks"
        )
        tokens = iter(output.tokens)
        for sequence, chunk in zip(self.sequences, self.chunks, strict=True):
            token = next(tokens) if chunk.samples else None
            assert token is None or token.request_id == chunk.request_id, "tokens out of order"
            yield sequence, chunk, token
