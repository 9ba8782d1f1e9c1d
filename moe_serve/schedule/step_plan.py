"""One step while it is put together and computed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from moe_serve.schedule.sequence import Phase, Sequence
from moe_serve.schedule.step_cost import StepWork
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


def that_decode(running: Iterable[Sequence]) -> list[Sequence]:
    """Those with one token to compute."""
    phase = Phase.RUNNING
    return [each for each in running if each.num_uncomputed == 1 and each.phase is phase]


def outlook(running: Iterable[Sequence]) -> tuple[StepWork, int | None]:
    """All that could decode in the next step, and how many tokens lie before the part of a prompt
    that is next in it; None where none is."""
    phase = Phase.RUNNING
    num_decoding = context = 0
    first: int | None = None
    for sequence in running:
        if sequence.phase is phase:
            length, start = len(sequence.token_ids), sequence.num_computed
            if length == start + 1:
                num_decoding += 1
                context += length
            elif first is None:
                first = start
    return StepWork(num_decoding=num_decoding, context=context), first


class Rotation:
    """Has sequences take turns where a step has no room for all of them."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, sequences: list[Sequence], num_places: int) -> list[Sequence]:
        """As many as there are places, first those whose last turn is longest ago."""
        if len(sequences) <= num_places:
            return sequences
        chosen = sorted(sequences, key=lambda sequence: sequence.last_turn)[:num_places]
        for sequence in chosen:
            self._turn += 1
            sequence.last_turn = self._turn
        return chosen
