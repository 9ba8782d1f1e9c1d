"""One rank's share of what the ranks of a group divide among them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Member `index` of `count`; by default a rank that shares with nobody."""

    index: int = 0
    count: int = 1

    def of(self, total: int) -> slice:
        """This member's part of `total` things: adjacent ones, in member order, no part larger
        than another by more than one."""
        return slice(total * self.index // self.count, total * (self.index + 1) // self.count)

    def sizes(self, total: int) -> list[int]:
        """The size of each member's part, in member order."""
        ends = [total * (index + 1) // self.count for index in range(self.count)]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]


ALONE = Shard()
