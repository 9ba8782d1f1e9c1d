"""How many workers of each kind in each phase: a small integer program, prefill matched to decode.

Shapes: O offers, G groups of the cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind

Floats = NDArray[np.float64]

# HiGHS stops at nodes, not seconds: the same arguments give the same answer on any machine.
_OPTIONS = {"mip_rel_gap": 1e-3, "node_limit": 2000, "presolve": False}
# Groups up to which kinds of workers are counted; with more a simple plan is no longer the aim.
_FEW_GROUPS = 6
# Of the rate that the best lone kind of worker serves.
ENTRY_COST = 0.01
# Steps that a rate is counted in, of the most that one kind of worker serves.
_RATE_UNITS = 10_000
# Of the cheapest node: among plans of one price, that with the fewest kinds of workers is taken.
_USED_COST = 1e-3


@dataclass(frozen=True, slots=True)
class Offer:
    """What one worker of a kind serves in a phase.

    Attributes:
        rate: requests per second.
    """

    kind: WorkerKind
    phase: Phase
    rate: float

    def devices(self, num_groups: int) -> Floats:
        """Devices that one worker takes of each group."""
        used_G = np.zeros(num_groups)
        for part in self.kind.parts:
            used_G[part.group] += part.num_devices
        return used_G


def most_served(
    offers: Sequence[Offer], devices_G: Sequence[int], *, mixed: bool = False
) -> Deployment | None:
    """The counts that serve the most requests per second on these devices; None serves none.

    A further kind of worker must bring a hundredth more, for every kind is one more thing to run.

    Args:
        mixed: at least one worker must be of unlike parts.
    """
    if not offers:
        return None
    program = _Program(offers, devices_G)
    unit = max(program.phases_PO.max(0) * program.most_O) / _RATE_UNITS
    entry = ENTRY_COST * _RATE_UNITS if len(devices_G) <= _FEW_GROUPS else 0.0
    price = program.columns(used=entry, rate=-1.0)
    limits = [program.room, *program.served(unit, -1.0, 0.0)]
    if entry:
        limits.append(program.named)
    if mixed:
        limits.append(program.mixed)
    return program.solve(price, limits)


@dataclass(frozen=True, slots=True)
class NodePrice:
    """What one whole node of a group costs, and its devices."""

    price: float
    num_devices: int


def cheapest(
    offers: Sequence[Offer],
    devices_G: Sequence[int],
    rate: float,
    nodes_G: Sequence[NodePrice],
    *,
    mixed: bool = False,
) -> Deployment | None:
    """The counts that serve `rate` on the whole nodes that cost least; None where none can.

    Args:
        mixed: at least one worker must be of unlike parts.
    """
    if not offers:
        return None
    program = _Program(offers, devices_G, nodes_G)
    used = _USED_COST * min(node.price for node in nodes_G)
    price = program.columns(used=used, nodes=[node.price for node in nodes_G])
    limits = [program.room, program.named, *program.served(rate, 0.0, 1.0)]
    if mixed:
        limits.append(program.mixed)
    return program.solve(price, limits)


class _Program:
    """The limits that all questions share. Columns, all integer: a count of each offer, whether
    each offer is used at all, the rate that is served, and, where nodes are bought, their number
    in each group."""

    def __init__(
        self,
        offers: Sequence[Offer],
        devices_G: Sequence[int],
        nodes_G: Sequence[NodePrice] = (),
    ) -> None:
        self.offers = offers
        held_G = np.asarray(devices_G, float)
        size_G = np.array([node.num_devices for node in nodes_G], float)
        self.num_nodes = len(nodes_G)
        devices_GO = np.stack([offer.devices(len(devices_G)) for offer in offers], axis=1)
        self.phases_PO = _phase_table(offers)
        with np.errstate(divide="ignore"):
            most_GO = np.where(devices_GO > 0, held_G[:, None] / devices_GO, np.inf)
        self.most_O = np.floor(most_GO.min(0))
        held = np.zeros(len(held_G)) if nodes_G else held_G
        room = self._table(devices_GO, nodes=-np.diag(size_G) if nodes_G else None)
        self.room = scipy.optimize.LinearConstraint(room, ub=held)
        num = len(offers)
        self.named = scipy.optimize.LinearConstraint(
            self._table(np.eye(num), used=-np.diag(self.most_O)), ub=0
        )
        is_mixed = np.array([[float(offer.kind.is_mixed) for offer in offers]])
        self.mixed = scipy.optimize.LinearConstraint(self._table(is_mixed), lb=1)
        most_nodes = held_G / size_G if nodes_G else np.empty(0)
        self.upper = np.concatenate([self.most_O, np.ones(num), [np.inf], most_nodes])

    def columns(
        self, *, used: float = 0.0, rate: float = 0.0, nodes: Sequence[float] = ()
    ) -> Floats:
        """What each column costs."""
        num = len(self.offers)
        return np.concatenate([np.zeros(num), np.full(num, used), [rate], nodes])

    def served(
        self, unit: float, rate: float, least: float
    ) -> "list[scipy.optimize.LinearConstraint]":
        """Workers of both phases and those of either phase serve at least so much: what separate
        phases serve is what the slower of them does.

        Args:
            unit: of the rate, in requests per second.
            rate: coefficient of the rate's column.
        """
        both, *separate = self.phases_PO / unit
        return [
            scipy.optimize.LinearConstraint(self._table((both + phase)[None], rate=rate), lb=least)
            for phase in separate
        ]

    def _table(
        self,
        counts: Floats,
        *,
        used: Floats | None = None,
        rate: float = 0.0,
        nodes: Floats | None = None,
    ) -> Floats:
        """Rows of limits, from their coefficients by kind of column."""
        rows = len(counts)
        used = np.zeros((rows, len(self.offers))) if used is None else used
        nodes = np.zeros((rows, self.num_nodes)) if nodes is None else nodes
        return np.hstack([counts, used, np.full((rows, 1), rate), nodes])

    def solve(
        self, price: Floats, limits: "list[scipy.optimize.LinearConstraint]"
    ) -> Deployment | None:
        num = len(self.offers)
        result = scipy.optimize.milp(
            price,
            constraints=limits,
            integrality=np.ones(len(self.upper)),
            bounds=scipy.optimize.Bounds(0, self.upper),
            options=_OPTIONS,
        )
        if result.x is None:
            return None
        counts = np.rint(result.x[:num]).astype(int).tolist()
        deployment = Deployment.of(
            {(one.kind, one.phase): n for one, n in zip(self.offers, counts, strict=True)}
        )
        return deployment if deployment.workers else None


def _phase_table(offers: Sequence[Offer]) -> Floats:
    """Rates of each offer in its own phase's row: both, prefill, decode."""
    rows = [
        [offer.rate if offer.phase == phase else 0.0 for offer in offers]
        for phase in ("both", "prefill", "decode")
    ]
    return np.asarray(rows)
