"""The step header: the one small thing that all ranks of a group agree on before each step."""

from dataclasses import dataclass

import numpy as np

from moe_comm.transport.exchange import Exchange

# Words of the header on the wire. Those that no field uses yet hold the smallest int, which any
# later value beats, so a new field takes a word without changing what the others mean.
_NUM_WORDS = 8
_UNUSED = np.iinfo(np.int64).min


class EpochError(ValueError):
    """Ranks of one group came to a step with different plans."""


@dataclass(frozen=True, slots=True)
class StepHeader:
    """What one rank wants of the next step, or what all of them agreed on.

    Attributes:
        work: this rank has tokens to compute; agreed: any rank has.
        wake: newest wake number seen; agreed: the newest that any rank has seen. All ranks
            sleep when an agreed header has no work and the same wake number as the agreed header
            before it, which all of them know.
        plan_epoch: of the plan that the rank runs; must be equal.
        tenant: the served model that this rank's work is for; agreed: the largest of those with
            work, -1 where there is none. The others take part in that step with no tokens.
        stop: agreed: any rank asks to stop.
        ready_epoch: of the newest plan that the rank can run; agreed: that all of them can.
        given_up_epoch: of the newest plan that the rank could not make ready, 0 where there is
            none; agreed: that any of them could not.
    """

    work: bool
    wake: int
    plan_epoch: int
    tenant: int
    stop: bool
    ready_epoch: int = 0
    given_up_epoch: int = 0


def agree(exchange: Exchange, header: StepHeader) -> StepHeader:
    """One max-reduce over the group -> the header that all ranks act on.

    Raises:
        EpochError: the ranks run plans of different epochs.
        PeerLostError: a rank did not come to the step.
    """
    words = np.full(_NUM_WORDS, _UNUSED, dtype=np.int64)
    tenant = header.tenant if header.work else -1
    # The smallest epoch is the negative of the largest negative one.
    words[:8] = (
        header.work,
        header.stop,
        header.wake,
        tenant,
        header.plan_epoch,
        -header.plan_epoch,
        -header.ready_epoch,
        header.given_up_epoch,
    )
    agreed = exchange.max_reduce(words)[:8].tolist()
    work, stop, wake, tenant, newest, oldest, unready, given_up = agreed
    if newest != -oldest:
        raise EpochError(
            f"ranks of one group run plans of epochs {-oldest} to {newest}, this one"
            f" {header.plan_epoch}; a plan may change only where all ranks change it"
        )
    return StepHeader(bool(work), wake, newest, tenant, bool(stop), -unready, given_up)
