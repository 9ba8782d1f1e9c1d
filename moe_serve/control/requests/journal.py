"""The journal of live requests: all that is needed to run one again somewhere else."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from moe_serve.types import Request, TokenEvent


@dataclass(slots=True)
class Entry:
    """One live request.

    Attributes:
        rank: the plan rank that runs it.
        prefill_rank: the one that computes its prompt for it; None if there is none, or no longer.
        token_ids: tokens that came back so far.
    """

    request: Request
    rank: int
    prefill_rank: int | None = None
    token_ids: list[int] = field(default_factory=list)

    @property
    def rest(self) -> Request:
        """What is left to generate of it, for another rank."""
        return replace(
            self.request,
            prefill_rank=None,
            generated_ids=tuple(self.token_ids),
            was_admitted=True,
        )


class Journal:
    """Live requests by id; each is opened once and closed once."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, request: Request, rank: int) -> None:
        self._entries[request.request_id] = Entry(request, rank, request.prefill_rank)

    def record(self, event: TokenEvent) -> Entry | None:
        """The event's entry, with its token added; None if the request is no longer live."""
        entry = self._entries.get(event.request_id)
        if entry is not None and event.token_id is not None:
            entry.token_ids.append(event.token_id)
        return entry

    def of_ranks(self, ranks: Collection[int]) -> list[Entry]:
        """Requests that some ranks run."""
        return [entry for entry in self._entries.values() if entry.rank in ranks]

    def of_tenant(self, tenant: int) -> list[str]:
        """Ids of the requests of one model."""
        return [name for name, entry in self._entries.items() if entry.request.tenant == tenant]

    def close(self, request_id: str) -> Entry | None:
        return self._entries.pop(request_id, None)

    def get(self, request_id: str) -> Entry | None:
        return self._entries.get(request_id)
