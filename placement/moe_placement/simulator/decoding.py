"""The sequences of one rank that decode, as a group that grows together."""

from heapq import heappop, heappush

from moe_placement.simulator.sequence import Sequence

Entry = tuple[int, int, Sequence]


class DecodingGroup:
    """Each step adds as many tokens to each member, so only those that end or fill a page count.

    A common clock counts the tokens that a member of old would have had. What will happen to a
    member stands on the clock from the start; a step then costs what happens in it, not its size.

    Attributes:
        context: tokens of all members together.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._clock = 0
        self._num_joined = 0
        self._joined_at: dict[int, int] = {}
        self._ends: list[Entry] = []
        self._full: list[Entry] = []
        self.context = 0

    def __len__(self) -> int:
        return len(self._joined_at)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.ticket in self._joined_at

    def join(self, sequence: Sequence) -> None:
        """Take in a sequence whose newest token alone is uncomputed, and which has some left."""
        self._num_joined += 1
        sequence.ticket = self._num_joined
        self._joined_at[sequence.ticket] = self._clock
        self.context += sequence.num_tokens
        heappush(self._ends, (self._clock + sequence.num_left, sequence.ticket, sequence))
        self._expect_full(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Let a member go, with its tokens counted."""
        num_grown = self._clock - self._joined_at.pop(sequence.ticket)
        self.context -= sequence.num_tokens + num_grown
        sequence.num_generated += min(num_grown, sequence.num_left)
        sequence.num_computed = sequence.num_tokens - 1

    def outgrowing(self, num_tokens: int) -> list[Sequence]:
        """Members whose pages cannot hold a step of `num_tokens`, in order of admission."""
        return self._due(self._full, self._clock + num_tokens - 1)

    def add_page(self, sequence: Sequence) -> None:
        """A member that outgrew its pages has one more."""
        sequence.num_pages += 1
        self._expect_full(sequence)

    def advance(self, num_tokens: int) -> list[Sequence]:
        """Give each member as many tokens; those that had their last one go too."""
        self._clock += num_tokens
        self.context += num_tokens * len(self)
        ended = self._due(self._ends, self._clock)
        for sequence in ended:
            self.leave(sequence)
        return ended

    def _expect_full(self, sequence: Sequence) -> None:
        room = sequence.num_pages * self._page_size - sequence.num_tokens
        due = self._joined_at[sequence.ticket] + room + 1
        heappush(self._full, (due, sequence.ticket, sequence))

    def _due(self, entries: list[Entry], clock: int) -> list[Sequence]:
        """Members whose time on the clock has come, in order of admission."""
        due = []
        while entries and entries[0][0] <= clock:
            _, ticket, sequence = heappop(entries)
            if ticket in self._joined_at:
                due.append(sequence)
        return sorted(due, key=lambda sequence: sequence.order)
