"""Ranks that were started become a world: they meet, and open the exchanges of their groups."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.lifeline import Record
from moe_comm.transport.torch_dist import TorchExchange, open_torch_exchange
from moe_comm.transport.world import World, open_world

from moe_serve.config.tree import Config
from moe_serve.control.meeting.addresses import host_address
from moe_serve.control.meeting.join import join
from moe_serve.control.meeting.world import LaunchedWorld, roll_call
from moe_serve.control.planning.groups import Partition, part_of
from moe_serve.served_digests import served_digests

# Loading a large checkpoint from a slow disk takes this long at most, also when ranks are lost.
_BRING_UP_SECONDS = 3600.0
# Longer than any step: who has not come to an exchange by then hangs.
_STEP_SECONDS = 300.0
# For all to end what they compute when they leave.
_PARTING_SECONDS = 300.0


class Meeting:
    """What the ranks have of each other after they met.

    Exchanges of groups are opened by all ranks together, each for its own part; engines that
    follow one another in these processes share them, until `close`.

    Attributes:
        exchange: of all ranks that are not lost, for bring-up alone; waits long. Ranks that come
            back have one of their own mpirun until they meet the others.
        ranks: of `exchange`, by plan rank, in its order.
    """

    def __init__(
        self, launch: LaunchedWorld, world: World, exchange: Exchange, ranks: Sequence[int]
    ) -> None:
        self.launch = launch
        self.exchange = exchange
        self.ranks = tuple(ranks)
        self._world = world
        self._of_hosts: dict[Partition, Exchange] = {}
        self._of_devices: dict[tuple[Partition, str], Exchange] = {}

    @property
    def there(self) -> frozenset[int]:
        """Plan ranks that are not lost, those that come back among them."""
        return frozenset((*self._world.ranks, *self.ranks))

    @property
    def comes_back(self) -> bool:
        """These ranks were lost, and the others serve; they have not met yet."""
        return self.launch.joined is not None and self.launch.joined.comeback is not None

    def follow_peers(self, welcome: Callable[[], bytes]) -> None:
        """From now on a rank that ends or falls silent is lost; called by all ranks together.

        Args:
            welcome: what ranks are told that come back later on; asked in a thread of its own.
        """
        self._world.follow_peers(self.exchange, welcome)

    def check_peers(self) -> None:
        """For times in which nothing is exchanged; PeerLostError where a rank was lost, or is there
        again."""
        self._world.check_peers()

    def part(self) -> None:
        """Agree with all that are there that they leave, and `close` then.

        Raises:
            PeerLostError: somebody was lost or came back before they agreed.
        """
        self._world.part(_PARTING_SECONDS)

    def leave_lost_behind(self) -> Record:
        """After a PeerLostError: learn who is there, and give up all exchanges.

        Raises:
            PeerLostError: there is no going on.
        """
        for exchange in self._of_devices.values():
            if isinstance(exchange, TorchExchange):
                exchange.abandon()
        self._of_devices.clear()
        self._of_hosts.clear()
        return self._world.leave_lost_behind()

    def meet_again(self) -> None:
        """Of those that are there, who learned of one another by `leave_lost_behind`.

        Raises:
            PeerLostError: another rank was lost meanwhile, or is there again.
        """
        self.ranks = self._world.ranks
        # Experts may be loaded again; who ends meanwhile is missed without a deadline.
        self.exchange = self._world.open_exchange(self.ranks, _BRING_UP_SECONDS, _never)
        self._world.watch_links()

    @property
    def has_changed(self) -> bool:
        """A rank was lost or came back since the ranks last met, and those there can go on."""
        return self._world.has_changed

    def open_exchange(self, partition: Partition) -> Exchange:
        """The exchange between the hosts of this rank's part."""
        if partition not in self._of_hosts:
            members = part_of(partition, self.launch.rank)
            self._of_hosts[partition] = self._world.open_exchange(members, _STEP_SECONDS, _never)
        return self._of_hosts[partition]

    def open_native_exchange(
        self, partition: Partition, collective: str, device: torch.device
    ) -> Exchange:
        """The exchange between the devices of this rank's part.

        Args:
            collective: mpi, which is the hosts', or the backend of a torch.distributed group.
        """
        hosts = self.open_exchange(partition)
        if collective == "mpi" or hosts.size == 1:
            return hosts
        key = partition, collective
        if key not in self._of_devices:
            self._of_devices[key] = open_torch_exchange(
                hosts,
                host_address(self.launch),
                collective,
                device,
                _STEP_SECONDS,
                # Where ranks come back nobody's connection breaks.
                self._world.is_outdated,
            )
        return self._of_devices[key]

    def close(self) -> None:
        """Leave the world; all ranks do so together."""
        for exchange in self._of_devices.values():
            exchange.close()
        self._world.close()


def _never() -> bool:
    return False


def meet(config: Config, launch: LaunchedWorld) -> Meeting:
    """Open the world of ranks that have joined; those that have not do so here.

    Raises:
        AgreedError: they run different versions, read different configs, or sit wrongly.
    """
    if launch.joined is None:
        launch = join(config, launch, roll_call(launch), partial(served_digests, config))
    world = open_world(launch.in_mpirun, launch.joined)
    comes_back = launch.joined is not None and launch.joined.comeback is not None
    members = launch.joined.mpirun_ranks if launch.joined and comes_back else range(world.size)
    exchange = world.open_exchange(members, _BRING_UP_SECONDS, _never)
    return Meeting(launch, world, exchange, members)
