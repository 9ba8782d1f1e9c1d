"""What the leader of an attention group and its members tell each other of handovers."""

from typing import TypeAlias

import msgspec


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Offer your heads of a prompt of `num_tokens` to the group that `decode_rank` leads."""

    request_id: str
    decode_rank: int
    num_tokens: int


class Hold(msgspec.Struct, frozen=True, tag=True):
    """The prompt's pages; `num_computed` leading tokens lie in them, and more after each step."""

    request_id: str
    page_ids: tuple[int, ...]
    num_computed: int


class Accept(msgspec.Struct, frozen=True, tag=True):
    """Take your heads of a prompt into these pages, from `first_token` on."""

    request_id: str
    first_token: int
    page_ids: tuple[int, ...]


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Send, or take, no more of a prompt: its pages may be others' from this step on."""

    request_id: str
    reason: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """All heads of this member are offered to it."""

    request_id: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """This member's part is over.

    Attributes:
        failure: why not all of it has crossed; empty where it has.
    """

    request_id: str
    failure: str = ""


Note: TypeAlias = Begin | Hold | Accept | Drop | Ready | Ended
