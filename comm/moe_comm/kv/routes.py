"""Which of several ranks sends which KV heads, where the two ends split the heads differently."""

from collections.abc import Sequence

from moe_comm.kv.hello import Hello
from moe_comm.kv.negotiate import CannotConvertError, negotiate


def even_heads(num_kv_heads: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """First KV head of a rank and the one after its last, where ranks hold adjacent heads; with
    more ranks than heads, several ranks hold the same one."""
    first = num_kv_heads * rank // num_ranks
    return first, first + max(1, num_kv_heads // num_ranks)


def routes(senders: Sequence[Hello], receivers: Sequence[Hello]) -> tuple[tuple[int, ...], ...]:
    """By receiver, indices of its senders, between all ranks of two ends.

    Raises:
        CannotConvertError: two of them cannot agree, or a head would be missing.
    """
    for receiver in receivers:
        for sender in senders:
            if sender.cells & receiver.cells:
                negotiate(sender, receiver)
    return tuple(senders_for(receiver, senders) for receiver in receivers)


def senders_for(receiver: Hello, senders: Sequence[Hello]) -> tuple[int, ...]:
    """Indices of the ranks that together send this receiver each of its heads exactly once.

    Of ranks that hold the same heads, receivers of different rank get different ones.

    Raises:
        CannotConvertError: no such choice was found; names a head that is missing.
    """
    missing = set(receiver.cells)
    turn = receiver.rank % len(senders) if senders else 0
    order = [*range(turn, len(senders)), *range(turn)]
    chosen: list[int] = []
    while missing:
        gains = {
            index: len(shared)
            for index in order
            if (shared := senders[index].cells & receiver.cells) and shared <= missing
        }
        if not gains:
            layer, head = min(missing)
            raise CannotConvertError(
                f"{receiver.name} needs KV head {head} of layer {layer}, which no rank on the"
                " sending side can add to what the others send"
            )
        best = max(gains, key=gains.__getitem__)
        chosen.append(best)
        missing -= senders[best].cells
    return tuple(sorted(chosen))
