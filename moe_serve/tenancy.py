"""What one model on a rank shares with the others there."""

from dataclasses import dataclass

from moe_serve.schedule.ledger import MemoryLedger

# Entries of the ledger.
WEIGHTS = "weights"
WORKING_SPACE = "working_space"


@dataclass(frozen=True, slots=True)
class Tenancy:
    """
    Attributes:
        number: of the tenant.
        ledger: of the rank.
        lendable: bytes that its cache may ever come to hold; 0 where it neither lends nor borrows.
        is_hard: it never borrows.
        takes_turns: it has no step while another has one.
    """

    number: int
    ledger: MemoryLedger
    lendable: int
    is_hard: bool
    takes_turns: bool

    def book(self, weights: int, working_space: int) -> None:
        """Bytes before they are taken; LedgerError where they are not left."""
        self.ledger.book(self.number, WEIGHTS, weights)
        self.ledger.book(self.number, WORKING_SPACE, working_space, in_turn=self.takes_turns)
