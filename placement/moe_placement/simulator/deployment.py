"""What is simulated: workers, what joins them, and what is to befall them."""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Literal

from moe_placement.cost.step_timer import StepTimer
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.incidents import Failure, PlanSwitch
from moe_placement.simulator.router import RoutingPolicy
from moe_placement.simulator.scheduler import SchedulerLimits
from moe_placement.simulator.scheduler_choice import STAND_IN

WorkerRole = Literal["both", "prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLink:
    """Attributes:
    bandwidth: bytes/s.
    latency: seconds of one message.
    """

    name: str
    bandwidth: float = inf
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or self.latency < 0:
            raise SimulationError(
                f"link {self.name!r} has bandwidth {self.bandwidth:g} and latency "
                f"{self.latency:g}; give a bandwidth above 0 and a latency of 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that each token of a step sends over a link, by dispatch and combine.

    They are counted; the time that they take is the worker's timer's to know.
    """

    link: str
    bytes_per_token: float

    def __post_init__(self) -> None:
        _check_bytes(self.link, self.bytes_per_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """How the KV cache of a prompt gets from a prefill worker to a decode worker.

    The prefill worker may use its pages anew when the prefill ends; the decode worker takes pages
    when the cache has come.

    Attributes:
        bytes_per_token: over all layers.
        num_layers: sent each as soon as it is computed, so that behind the prefill only the
            last one is left to send; 1 sends all of it then.
        delays_first_token: the decode worker answers, so that the transfer counts in TTFT.
        max_local_prefill: tokens of a prompt up to which the decode worker computes it itself.
    """

    link: str
    bytes_per_token: float
    num_layers: int = 1
    delays_first_token: bool = False
    max_local_prefill: int = 0

    def __post_init__(self) -> None:
        _check_bytes(self.link, self.bytes_per_token)
        if self.num_layers < 1:
            raise SimulationError(
                f"the transfer has num_layers {self.num_layers}; it must be at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedWorker:
    """Devices that hold one copy of the model together and step together.

    Attributes:
        pool: the workers of a pool are counted together.
        timer: of the whole worker's step, were its ranks evenly loaded.
        limits: of each of its ranks.
        num_ranks: attention groups, each with its own scheduler and cache, in lock-step.
        rank_timer: the part of the step that ranks do each for its own tokens, as attention. Of
            a step of the whole worker; asked with each rank's tokens as if all had as many, it
            tells how much longer the slowest rank takes than an even share. It must not fall
            with more tokens or longer contexts. None is no longer at all.
        weight: the router's; a worker with twice the weight gets twice the requests a rank.
        rank_weights: the same between its ranks, where their devices are unlike; empty is alike.
        traffic: that dispatch brings.
        noise: coefficient of variation of step times that the timer does not know of.
    """

    pool: str
    timer: StepTimer
    limits: SchedulerLimits
    role: WorkerRole = "both"
    num_ranks: int = 1
    rank_timer: StepTimer | None = None
    weight: float = 1.0
    rank_weights: tuple[float, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or not self.weight > 0 or self.noise < 0:
            raise SimulationError(
                f"a worker of pool {self.pool!r} has num_ranks {self.num_ranks}, weight "
                f"{self.weight:g} and noise {self.noise:g}; they must be at least 1, above 0 and "
                "at least 0"
            )
        weights = self.rank_weights
        if weights and (len(weights) != self.num_ranks or not min(weights) > 0):
            raise SimulationError(
                f"a worker of pool {self.pool!r} has rank_weights {weights} for {self.num_ranks} "
                "ranks; give each one above 0, or none"
            )

    @property
    def rank_shares(self) -> tuple[float, ...]:
        """The share of the worker's requests that each rank gets."""
        weights = self.rank_weights or (1.0,) * self.num_ranks
        total = sum(weights)
        return tuple(weight / total for weight in weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDeployment:
    """Attributes:
    transfer: where prefill and decode workers are apart.
    scheduler: a name for `scheduler_choice.find_scheduler`.
    sample_seconds: between two looks at the queues.

    Raises:
        SimulationError: the parts do not fit together.
    """

    workers: tuple[SimulatedWorker, ...]
    links: tuple[SimulatedLink, ...] = ()
    transfer: KvTransfer | None = None
    routing: RoutingPolicy = "prefix"
    scheduler: str = STAND_IN
    failures: tuple[Failure, ...] = ()
    switches: tuple[PlanSwitch, ...] = ()
    sample_seconds: float = 1.0

    def __post_init__(self) -> None:
        _check_roles({worker.role for worker in self.workers}, self.transfer)
        if not self.sample_seconds > 0:
            raise SimulationError(f"sample_seconds is {self.sample_seconds:g}; it must be above 0")
        names = [link.name for link in self.links]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SimulationError(f"link {twice!r} is given twice; keep one")
        used = [traffic.link for worker in self.workers for traffic in worker.traffic]
        used += [self.transfer.link] if self.transfer else []
        used += [switch.link for switch in self.switches if switch.link]
        for name in used:
            if name not in names:
                raise SimulationError(f"link {name!r} is used but not given; add it to links")
        incidents: tuple[Failure | PlanSwitch, ...] = (*self.failures, *self.switches)
        for incident in incidents:
            if not 0 <= incident.worker < len(self.workers):
                raise SimulationError(
                    f"worker {incident.worker} is to fail or switch; there are workers 0.."
                    f"{len(self.workers) - 1}"
                )
        for failure in self.failures:
            num_ranks = self.workers[failure.worker].num_ranks
            if failure.rank is not None and not 0 <= failure.rank < num_ranks:
                raise SimulationError(
                    f"rank {failure.rank} of worker {failure.worker} is to fail; it has ranks 0.."
                    f"{num_ranks - 1}"
                )


def _check_bytes(link: str, bytes_per_token: float) -> None:
    if not 0 <= bytes_per_token < inf:
        raise SimulationError(
            f"a token has {bytes_per_token:g} bytes for link {link!r}; give 0 or more"
        )


def _check_roles(roles: Collection[WorkerRole], transfer: KvTransfer | None) -> None:
    if not {"both", "prefill"} & set(roles):
        raise SimulationError("no worker does prefill; give one the role 'both' or 'prefill'")
    if ("prefill" in roles) != ("decode" in roles):
        raise SimulationError("prefill and decode workers need each other; give one of each role")
    if "prefill" in roles and transfer is None:
        raise SimulationError("prefill and decode are apart without a transfer; give one")
