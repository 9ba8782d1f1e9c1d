"""The way of requests through workers: routed, prefilled, sent on, decoded, and routed anew."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from moe_placement.simulator.deployment import SimulatedDeployment
from moe_placement.simulator.events import EventQueue
from moe_placement.simulator.incidents import Failure
from moe_placement.simulator.links import Links
from moe_placement.simulator.live_request import LiveRequest
from moe_placement.simulator.rank import Rank
from moe_placement.simulator.recorder import Recorder
from moe_placement.simulator.router import FullError, Router, Target
from moe_placement.simulator.scheduler import Outcome, RefusedError, SimulatedRequest, Step
from moe_placement.simulator.worker import Worker


class RequestFlow:
    """Hears of each step and moves requests on.

    Args:
        on_over: called when a request has ended or is refused.

    Attributes:
        workers: to be filled in before the first request.
        last_at: seconds of the last thing that happened to a request.
    """

    def __init__(
        self,
        deployment: SimulatedDeployment,
        events: EventQueue,
        links: Links,
        recorder: Recorder,
        on_over: Callable[[], None],
    ) -> None:
        self.workers: list[Worker] = []
        self.last_at = 0.0
        self._transfer = deployment.transfer
        self._events, self._links, self._recorder = events, links, recorder
        self._on_over = on_over
        self._live: dict[int, LiveRequest] = {}
        self._parked: dict[bool, deque[LiveRequest]] = {False: deque(), True: deque()}
        self._prefill = Router(_targets(deployment, {"both", "prefill"}), deployment.routing)
        self._decode = Router(_targets(deployment, {"decode"}), deployment.routing)

    def arrive(self, request: SimulatedRequest) -> None:
        """Take in a request now."""
        assert request.request_id not in self._live, f"request {request.request_id} is live"
        self._recorder.num_requests += 1
        self.last_at = self._events.now
        self._live[request.request_id] = live = LiveRequest(request, request)
        self._hand_over(live)

    def began(self, step: Step, rank: Rank) -> None:
        """A rank computes chunks, or has preempted requests."""
        for chunk in step.chunks:
            live = self._live[chunk.request_id]
            if live.began_at is None:
                live.began_at = self._events.now
        for request_id in step.preempted:
            self._live[request_id].last_token_at = rank.last_end

    def ended(self, outcome: Outcome, rank: Rank) -> None:
        """A rank's step is computed."""
        now = self.last_at = self._events.now
        if outcome.num_decoded:
            gap = (now - rank.last_end) / outcome.tokens_each
            self._recorder.gap(gap, outcome.num_decoded * outcome.tokens_each)
        for request_id in outcome.emitted:
            self._emit(self._live[request_id])
        for request_id in outcome.finished:
            self._finish_part(self._live[request_id])

    def fail(self, failure: Failure) -> None:
        """Send what a worker or rank held to others, with the tokens so far as prompt."""
        for target in self._hit(failure):
            target.away += 1
        for request_id, num_tokens in self._lose(failure).items():
            live = self._live[request_id]
            if num_tokens:
                live.last_token_at = self._rank_of(live).last_end
            live.leave(num_tokens)
            live.has_cache = False
            self._recorder.num_resubmitted += 1
            self._hand_over(live)

    def recover(self, failure: Failure) -> None:
        """Take requests again, first those that found nobody."""
        for target in self._hit(failure):
            target.away -= 1
        if failure.rank is not None:
            self.workers[failure.worker].regain_rank(failure.rank)
        self._call_parked()

    def _hand_over(self, live: LiveRequest) -> None:
        """Give a request to a rank; keep it where it has to wait for one."""
        if not self._try(live):
            self._parked[self._is_decoded(live)].append(live)

    def _call_parked(self) -> None:
        for parked in self._parked.values():
            while parked and self._try(parked[0]):
                parked.popleft()

    def _try(self, live: LiveRequest) -> bool:
        """Place a request, or refuse it; False where no rank can take it now."""
        router = self._decode if self._is_decoded(live) else self._prefill
        try:
            live.target = router.pick(live.request)
            if live.target is not None:
                self._submit(live, live.target)
        except FullError:
            # Who was taken once is not sent away for want of room.
            if not live.is_taken:
                self._refuse(live)
            return not live.is_taken
        except RefusedError:
            self._refuse(live)
            return True
        return live.target is not None

    def _is_decoded(self, live: LiveRequest) -> bool:
        """Whether a decode worker is to have it now, with its cache or to compute that too."""
        most = self._transfer.max_local_prefill if self._transfer else 0
        return live.has_cache or live.request.prompt_tokens + live.num_tokens <= most

    def _submit(self, live: LiveRequest, target: Target) -> None:
        worker = self.workers[target.worker]
        live.part = live.next_part(1 if worker.spec.role == "prefill" else live.num_left)
        live.began_at, live.is_taken = None, True
        worker.submit(target.rank, live.part, live.part.prompt_tokens - 1 if live.has_cache else 0)

    def _refuse(self, live: LiveRequest) -> None:
        if live.target is not None:
            live.leave(0)
        self._recorder.num_refused += 1
        self._end(live)

    def _emit(self, live: LiveRequest) -> None:
        now = self._events.now
        if live.first_token_at is not None:
            self._recorder.gap(now - live.last_token_at)
        elif live.answers_here(self._transfer):
            live.first_token_at = now
        live.last_token_at = now

    def _finish_part(self, live: LiveRequest) -> None:
        live.leave(live.part.output_tokens)
        if live.num_left:
            self._send(live)
        else:
            self._recorder.end(live, self._events.now)
            self._end(live)
        self._call_parked()

    def _send(self, live: LiveRequest) -> None:
        assert self._transfer is not None and live.began_at is not None
        num_tokens, now = live.part.prompt_tokens, self._events.now
        arrival = self._links.send(self._transfer, num_tokens, live.began_at, now)
        self._events.at(arrival, partial(self._receive, live))

    def _receive(self, live: LiveRequest) -> None:
        if live.first_token_at is None:
            live.first_token_at = live.last_token_at = self._events.now
        live.has_cache = True
        self._hand_over(live)

    def _end(self, live: LiveRequest) -> None:
        self.last_at = self._events.now
        del self._live[live.request.request_id]
        self._on_over()

    def _lose(self, failure: Failure) -> Mapping[int, int]:
        worker = self.workers[failure.worker]
        if failure.rank is None:
            return worker.die()
        return worker.lose_rank(failure.rank, failure.pause, failure.timer)

    def _hit(self, failure: Failure) -> Iterator[Target]:
        for target in (*self._prefill.targets, *self._decode.targets):
            if target.worker == failure.worker and failure.rank in (None, target.rank):
                yield target

    def _rank_of(self, live: LiveRequest) -> Rank:
        assert live.target is not None
        return self.workers[live.target.worker].ranks[live.target.rank]


def _targets(deployment: SimulatedDeployment, roles: set[str]) -> list[Target]:
    return [
        Target(index, rank, worker.weight * worker.num_ranks * share, worker.limits.max_live)
        for index, worker in enumerate(deployment.workers)
        for rank, share in enumerate(worker.rank_shares)
        if worker.role in roles
    ]
