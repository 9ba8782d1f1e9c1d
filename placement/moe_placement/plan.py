"""The Plan: which expert replicas live on which rank, with routing weights, and who does what.

A frozen value that solver, CLI and engine share; the engine runs nothing that is not in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["prefill", "decode", "both", "experts"]

_WEIGHT_TOLERANCE = 1e-6


class PlanError(ValueError):
    """A plan that contradicts itself, its file, or the model it is meant for."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Like devices under one config entry.

    Attributes:
        ranks: plan ranks, stable for the life of the deployment.
        weight_format: float32, bfloat16, float16 (later fp8, int8, int4).
        ep_group: number of the EP group that the ranks belong to, or of the first of them.
        num_ep_groups: equal runs that the ranks, in their order, are split into; each belongs to
            the next EP group. Pools that name the same groups share them, run by run.
    """

    name: str
    device: str
    ranks: tuple[int, ...]
    role: Role = "both"
    weight_format: str = "bfloat16"
    tensor_parallel: int = 1
    ep_group: int = 0
    num_ep_groups: int = 1

    def is_in(self, group: int) -> bool:
        """Whether some of this pool's ranks belong to an EP group."""
        return self.ep_group <= group < self.ep_group + self.num_ep_groups

    def ep_group_of(self, rank: int) -> int:
        """The EP group of one of this pool's ranks."""
        return self.ep_group + self.ranks.index(rank) * self.num_ep_groups // len(self.ranks)

    def ep_groups(self) -> dict[int, tuple[int, ...]]:
        """This pool's ranks of each EP group."""
        size = len(self.ranks) // self.num_ep_groups
        return {
            self.ep_group + run: self.ranks[run * size : (run + 1) * size]
            for run in range(self.num_ep_groups)
        }


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One MoE layer's placement.

    Attributes:
        slots: for each plan rank, the expert in each of its slots, in slot order; counts may
            differ between ranks and a rank may have none.
        weights: same shape; the share of that expert's tokens that this replica takes. The
            weights of an expert's replicas sum to 1 within each EP group.
    """

    slots: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    def validate(
        self, layer: int, ranks_of_groups: Mapping[int, Sequence[int]], num_experts: int
    ) -> None:
        """Raise PlanError, naming layer, rank and expert, unless all experts are well placed.

        Args:
            ranks_of_groups: the plan ranks of each EP group.
        """
        _check_shape(self, layer, sum(map(len, ranks_of_groups.values())))
        for rank, (experts, weights) in enumerate(zip(self.slots, self.weights, strict=True)):
            _check_rank(layer, rank, experts, weights, num_experts)
        for group, ranks in ranks_of_groups.items():
            shares = dict.fromkeys(range(num_experts), 0.0)
            for rank in ranks:
                for expert, weight in zip(self.slots[rank], self.weights[rank], strict=True):
                    shares[expert] += weight
            place = f"layer {layer}" + f", EP group {group}" * (len(ranks_of_groups) > 1)
            _check_shares(place, shares)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole deployment of one model.

    Attributes:
        epoch: grows by one with every plan that replaces another.
        layers: by the model's layer index; dense layers are absent.
    """

    model: str
    num_experts: int
    pools: tuple[PoolPlan, ...]
    layers: dict[int, LayerPlan]
    epoch: int = 0

    @property
    def num_ranks(self) -> int:
        return sum(len(pool.ranks) for pool in self.pools)

    def ep_groups(self) -> dict[int, tuple[int, ...]]:
        """The plan ranks of each EP group, pool by pool."""
        groups: dict[int, tuple[int, ...]] = {}
        for pool in self.pools:
            for group, ranks in pool.ep_groups().items():
                groups[group] = groups.get(group, ()) + ranks
        return groups

    def pool_of(self, rank: int) -> PoolPlan:
        """The pool that holds a plan rank; PlanError if none does."""
        for pool in self.pools:
            if rank in pool.ranks:
                return pool
        raise PlanError(f"rank {rank} is in no pool; the plan has ranks 0..{self.num_ranks - 1}")

    def role_of(self, rank: int) -> Role:
        return self.pool_of(rank).role

    def ep_group_of(self, rank: int) -> int:
        return self.pool_of(rank).ep_group_of(rank)

    def experts_of(self, layer: int, rank: int) -> tuple[int, ...]:
        """The experts of one layer on one rank, in slot order; PlanError for a dense layer."""
        if layer not in self.layers:
            raise PlanError(f"layer {layer} has no experts in this plan")
        return self.layers[layer].slots[rank]

    def num_slots(self, rank: int) -> int:
        """Slots of one rank over all layers."""
        return sum(len(layer.slots[rank]) for layer in self.layers.values())

    def validate(self) -> None:
        """Raise PlanError, naming pool, layer, rank and expert, unless the plan can be run."""
        _check_pools(self.pools)
        groups = self.ep_groups()
        _check_groups(groups)
        distinct = {id(placement): layer for layer, placement in reversed(self.layers.items())}
        for layer in sorted(distinct.values()):
            self.layers[layer].validate(layer, groups, self.num_experts)


def _check_pools(pools: Iterable[PoolPlan]) -> None:
    owners: dict[int, str] = {}
    for pool in pools:
        if pool.role not in get_args(Role):
            raise PlanError(
                f"pool {pool.name!r} has role {pool.role!r}; use {', '.join(get_args(Role))}"
            )
        if pool.num_ep_groups < 1 or len(pool.ranks) % pool.num_ep_groups:
            raise PlanError(
                f"pool {pool.name!r} has {len(pool.ranks)} ranks for {pool.num_ep_groups} EP "
                "groups; each must have as many"
            )
        for rank in pool.ranks:
            if rank in owners:
                raise PlanError(f"rank {rank} is in pools {owners[rank]!r} and {pool.name!r}")
            owners[rank] = pool.name
    if not owners:
        raise PlanError("the plan's pools have no ranks; give at least one pool a rank")
    for expected, rank in enumerate(sorted(owners)):
        if rank != expected:
            raise PlanError(
                f"{len(owners)} ranks must be numbered 0..{len(owners) - 1}: rank {expected} is "
                f"in no pool, rank {rank} is in pool {owners[rank]!r}"
            )


def _check_groups(groups: Iterable[int]) -> None:
    numbers = sorted(groups)
    for expected, group in enumerate(numbers):
        if group != expected:
            raise PlanError(
                f"{len(numbers)} EP groups must be numbered 0..{len(numbers) - 1}: no pool is in "
                f"EP group {expected}"
            )


def _check_shape(placement: LayerPlan, layer: int, num_ranks: int) -> None:
    for name, rows in (("slots", placement.slots), ("weights", placement.weights)):
        if len(rows) != num_ranks:
            raise PlanError(f"layer {layer} has {name} for {len(rows)} ranks of {num_ranks}")
    for rank, (experts, weights) in enumerate(zip(placement.slots, placement.weights, strict=True)):
        if len(experts) != len(weights):
            raise PlanError(
                f"layer {layer}, rank {rank}: {len(experts)} slots but {len(weights)} weights"
            )


def _check_rank(
    layer: int, rank: int, experts: tuple[int, ...], weights: tuple[float, ...], num_experts: int
) -> None:
    place = f"layer {layer}, rank {rank}"
    for slot, (expert, weight) in enumerate(zip(experts, weights, strict=True)):
        if not 0 <= expert < num_experts:
            raise PlanError(f"{place}: expert {expert} is not among 0..{num_experts - 1}")
        if expert in experts[:slot]:
            raise PlanError(f"{place}: expert {expert} is there twice; a rank holds one replica")
        if not weight > 0:
            raise PlanError(f"{place}: expert {expert} has weight {weight}; it must be above 0")


def _check_shares(place: str, shares: Mapping[int, float]) -> None:
    for expert, share in shares.items():
        if share == 0.0:
            raise PlanError(f"{place}: expert {expert} is on no rank")
        if not abs(share - 1.0) <= _WEIGHT_TOLERANCE:
            raise PlanError(
                f"{place}: the weights of expert {expert} sum to {share:.7g}; they must sum to 1"
            )
