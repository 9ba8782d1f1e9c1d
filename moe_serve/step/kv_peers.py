"""The other ends of a rank's KV transfers: who is there, and what was agreed with them."""

import select
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import KvEvent, PeerLost, PeerReady, PeerRefused
from moe_comm.kv.negotiate import Agreement

from moe_serve.errors import BringUpError

_SECONDS_BETWEEN_CALLS = 5.0


@dataclass(frozen=True, slots=True)
class KvWay:
    """To an end that this one calls.

    Attributes:
        address: HOST:PORT.
        wire_type: in which numbers cross, whatever both ends could do; empty leaves it to them.
        declared: what carries them, where that is only emulated.
    """

    address: str
    wire_type: str = ""
    declared: DeclaredLink | None = None


class KvPeers:
    """
    Args:
        ways: to the ends that this one calls, by name.
    """

    def __init__(
        self,
        endpoint: KvEndpoint,
        ways: Mapping[str, KvWay],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._ways = dict(ways)
        self._called = {way.address: way for way in ways.values()}
        self._now = now
        self._sending: dict[str, Agreement | None] = {}
        self._next_calls: dict[str, float] = {}

    def is_ready(self, name: str) -> bool:
        return name in self._sending

    def sending(self, name: str) -> Agreement:
        """What was agreed with a peer that takes KV."""
        agreement = self._sending[name]
        assert agreement is not None, f"{name} takes no KV"
        return agreement

    def meet(self, names: Collection[str], seconds: float) -> None:
        """Call those that this end calls, and wait for all that are named.

        Raises:
            BringUpError: one was refused, or did not come.
        """
        for address in self._called:
            self._call(address)
        deadline = self._now() + seconds
        while missing := [name for name in names if not self.is_ready(name)]:
            left = deadline - self._now()
            if left <= 0:
                raise BringUpError(
                    f"no KV connection to {', '.join(missing)} within {seconds:g} s; open the "
                    "network between the pools, or look there for why"
                )
            select.select([self._endpoint], [], [], left)
            for event in self._endpoint.poll():
                if isinstance(event, PeerRefused) and event.address in self._called:
                    raise BringUpError(f"KV handover to {event.address}: {event.reason}")
                self.take(event)

    def take(self, event: KvEvent) -> None:
        """Note who comes and goes; other events are none of its business."""
        match event:
            case PeerReady():
                self._sending[event.hello.name] = event.sending
                # One that has come back has called itself.
                if event.hello.name in self._ways:
                    self._next_calls.pop(self._ways[event.hello.name].address, None)
            case PeerLost():
                self._sending.pop(event.name, None)
                if event.name in self._ways:
                    self._next_calls[self._ways[event.name].address] = self._now()
            case PeerRefused() if event.address in self._called:
                self._next_calls[event.address] = self._now() + _SECONDS_BETWEEN_CALLS

    def readdress(self, name: str, way: KvWay) -> None:
        """One that this end calls is elsewhere now; it will have called first."""
        if name in self._ways:
            before = self._ways[name].address
            self._next_calls.pop(before, None)
            del self._called[before]
        self._ways[name] = self._called[way.address] = way
        if not self.is_ready(name):
            self._next_calls[way.address] = self._now() + _SECONDS_BETWEEN_CALLS

    def call_again(self) -> None:
        """Call those that were lost, now and then."""
        for address, due in tuple(self._next_calls.items()):
            if self._now() >= due:
                del self._next_calls[address]
                self._call(address)

    def _call(self, address: str) -> None:
        way = self._called[address]
        self._endpoint.connect(address, wire_type=way.wire_type, declared=way.declared)
