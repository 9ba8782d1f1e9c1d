"""The step header: the one small thing that all ranks of a group agree on before each step."""

from dataclasses import dataclass

import numpy as np

from moe_comm.transport.exchange import Exchange

NUM_TURNS = 64
# Words of the header on the wire before those of the turns.
_NUM_FIELDS = 9


class EpochError(ValueError):
    """Ranks of one group came to a step with different plans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeader:
    """What one rank wants of the next step, or what all of them agreed on.

    Attributes:
        work: this rank has tokens to compute; agreed: any rank has.
        wake: newest wake number seen; agreed: the newest that any rank has seen. All ranks
            sleep when an agreed header has no work and the same wake number as the agreed header
            before it, which all of them know.
        plan_epoch: of the plan that the rank runs; must be equal.
        stop: agreed: any rank asks to stop.
        ready_epoch: of the newest plan that the rank can run; agreed: that all of them can.
        given_up_epoch: of the newest plan that the rank could not make ready, 0 where there is
            none; agreed: that any of them could not.
        clock: nanoseconds of the group's time, as this rank reckons; agreed: the latest.
        ready_change: number of the newest change of who is served that the rank is ready for;
            agreed: that all of them are.
        turns: whose turn the next step may be as far as this rank has work for it, by numbers
            below NUM_TURNS; agreed: as far as any rank has. Whose it is follows from what is
            agreed; a rank without work for it takes part with no tokens.
    """

    work: bool
    wake: int
    plan_epoch: int
    stop: bool = False
    ready_epoch: int = 0
    given_up_epoch: int = 0
    clock: int = 0
    ready_change: int = 0
    turns: frozenset[int] = frozenset()


def agree(exchange: Exchange, header: StepHeader) -> StepHeader:
    """One max-reduce over the group -> the header that all ranks act on; a rank alone agrees.

    Raises:
        EpochError: the ranks run plans of different epochs.
        PeerLostError: a rank did not come to the step.
    """
    if exchange.size == 1:
        return header
    words = np.zeros(_NUM_FIELDS + NUM_TURNS, dtype=np.int64)
    # The smallest of several numbers is the negative of the largest negative one.
    words[:_NUM_FIELDS] = (
        header.work,
        header.stop,
        header.wake,
        header.plan_epoch,
        -header.plan_epoch,
        -header.ready_epoch,
        header.given_up_epoch,
        header.clock,
        -header.ready_change,
    )
    for turn in header.turns:
        words[_NUM_FIELDS + turn] = 1
    agreed = exchange.max_reduce(words)
    work, stop, wake, newest, oldest, unready, given_up, clock, unchanged = agreed[
        :_NUM_FIELDS
    ].tolist()
    if newest != -oldest:
        raise EpochError(
            f"ranks of one group run plans of epochs {-oldest} to {newest}, this one"
            f" {header.plan_epoch}; a plan may change only where all ranks change it"
        )
    return StepHeader(
        work=bool(work),
        wake=wake,
        plan_epoch=newest,
        stop=bool(stop),
        ready_epoch=-unready,
        given_up_epoch=given_up,
        clock=clock,
        ready_change=-unchanged,
        turns=frozenset(np.flatnonzero(agreed[_NUM_FIELDS:]).tolist()),
    )
