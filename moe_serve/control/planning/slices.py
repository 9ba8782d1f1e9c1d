"""Which ranks each served model is on, and which share of them it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moe_serve.config.tree import ModelConfig, SliceConfig
from moe_serve.control.planning.own_processors import check_processors
from moe_serve.errors import PlacementError
from moe_serve.messages import ALL_RANKS, PlacedTenant

_MIB = 1 << 20
# A percent is the smallest share; sums of them are binary fractions.
_PERCENT = 0.01
_ANY_RANK = -2
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a model needs of each of its ranks before it can serve its longest sequence.

    Attributes:
        memory: bytes.
        has_experts: it is spread over all ranks unless it is told otherwise.
        is_elastic: more memory serves more sequences.
    """

    memory: int
    has_experts: bool = False
    is_elastic: bool = True


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """All tenants of some ranks.

    Attributes:
        budgets: bytes of each rank that its tenants may have together.
        tenants: by their numbers.
        gone: tenants that have gone, and whose processors nobody else has: those are divided once.
    """

    budgets: tuple[int, ...]
    tenants: tuple[PlacedTenant, ...] = ()
    gone: tuple[PlacedTenant, ...] = ()

    def with_models(
        self, models: Sequence[ModelConfig], needs: Sequence[Need], numbers: Sequence[int]
    ) -> "SlicePlan":
        """These too: where they say, or packed beside the others; those that name no share have
        equal parts of what is left.

        Raises:
            PlacementError: what does not fit, with both figures.
        """
        least = dict(zip(numbers, needs, strict=True))
        wishes = [
            _wish(number, model, least[number], self.budgets)
            for number, model in zip(numbers, models, strict=True)
        ]
        loose = [wish for wish in wishes if wish.rank == _ANY_RANK]
        settled = [wish for wish in wishes if wish.rank != _ANY_RANK]
        plan = replace(self, tenants=(*self.tenants, *settled))
        tenants = sorted((*plan.tenants, *plan._pack(loose, least)), key=lambda each: each.number)
        return replace(plan, tenants=tuple(tenants))._fill(least)._check()

    def without(self, number: int) -> "SlicePlan":
        tenant = self.tenant(number)
        gone = self.gone if tenant.takes_turns else (*self.gone, tenant)
        left = tuple(each for each in self.tenants if each.number != number)
        return replace(self, tenants=left, gone=gone)

    def resized(self, number: int, asked: SliceConfig) -> "SlicePlan":
        """The same with another slice for one tenant; 0 keeps what it has.

        Raises:
            PlacementError: what does not fit, with both figures.
        """
        tenant = self.tenant(number)
        if asked.isolate != tenant.model.slice.isolate:
            raise PlacementError(
                f"slice.isolate: {tenant.model.name} has {tenant.model.slice.isolate} as long as "
                f"it is served, got {asked.isolate}; unload it, and load it again"
            )
        resized = replace(
            tenant,
            model=replace(tenant.model, slice=asked),
            share=asked.compute_percent / 100 or tenant.share,
            memory=asked.memory_mb * _MIB or tenant.memory,
        )
        tenants = tuple(resized if each.number == number else each for each in self.tenants)
        return replace(self, tenants=tenants)._check()

    def tenant(self, number: int) -> PlacedTenant:
        return next(each for each in self.tenants if each.number == number)

    def on(self, rank: int) -> list[PlacedTenant]:
        """Tenants of a plan rank."""
        return [each for each in self.tenants if each.rank in (ALL_RANKS, rank)]

    def free_share(self, rank: int) -> float:
        return 1 - sum(each.share for each in self.on(rank))

    def _pack(self, loose: Sequence[PlacedTenant], least: Mapping[int, Need]) -> list[PlacedTenant]:
        """Each on a rank that has room for it beside the others."""
        if not loose:
            return []
        # Most servers have nothing to pack, and their ranks are to say no before they load scipy.
        from moe_placement.packing.pack import pack
        from moe_placement.packing.slices import PackDevice, PackItem

        devices = [
            PackDevice(
                name=str(rank),
                memory=budget,
                taken_compute=min(1.0, sum(max(each.share, _PERCENT) for each in self.on(rank))),
                taken_memory=min(budget, sum(_least_bytes(each, least) for each in self.on(rank))),
            )
            for rank, budget in enumerate(self.budgets)
        ]
        items = [
            PackItem(
                name=str(wish.number),
                compute=max(wish.share, _PERCENT),
                memory=_least_bytes(wish, least),
                hard=wish.is_hard,
            )
            for wish in loose
        ]
        # Without integer programs, which are given up after a time: all ranks find the same.
        packing = pack(items, devices, objective="even", time_limit=0.0)
        for left in packing.unplaced:
            wish = next(each for each in loose if str(each.number) == left.name)
            short = ", ".join(map(str, left.shortages))
            raise PlacementError(
                f"models[..]: no rank has room for {wish.model.name}: rank {left.device}: {short}"
            )
        return [replace(each, rank=int(packing.device_of[str(each.number)])) for each in loose]

    def _fill(self, least: Mapping[int, Need]) -> "SlicePlan":
        """Shares for those that have none yet: as much as is left for each where it is scarcest."""
        tenants = list(self.tenants)
        for index, tenant in enumerate(tenants):
            ranks = range(len(self.budgets)) if tenant.rank == ALL_RANKS else [tenant.rank]
            share, memory = tenant.share, tenant.memory
            if not share:
                share = min(self._left(rank, lambda each: each.share, 1.0) for rank in ranks)
            if not memory:
                memory = int(
                    min(
                        self._left(rank, lambda each: each.memory, self.budgets[rank])
                        for rank in ranks
                    )
                )
                _check_memory(tenant, memory, least[tenant.number])
            tenants[index] = replace(tenant, share=share, memory=memory)
        return replace(self, tenants=tuple(tenants))

    def _left(self, rank: int, of: Callable[[PlacedTenant], float], total: float) -> float:
        """An equal part of what those that say it leave to those that do not."""
        said = [of(each) for each in self.on(rank)]
        return (total - sum(said)) / max(1, said.count(0))

    def _check(self) -> "SlicePlan":
        for rank, budget in enumerate(self.budgets):
            here = self.on(rank)
            percent = 100 * sum(each.share for each in here)
            if percent > 100 + _ROUNDING or any(each.share < _PERCENT - _ROUNDING for each in here):
                asked = ", ".join(f"{each.model.name} {100 * each.share:g}" for each in here)
                raise PlacementError(
                    f"models[..].slice.compute_percent: rank {rank} has 100 percent, at least 1 "
                    f"for each model, and is asked for {percent:g} ({asked}); lower some"
                )
            check_processors(self.tenants, rank, self.gone)
            memory = sum(each.memory for each in here)
            if memory > budget:
                asked = ", ".join(f"{each.model.name} {each.memory // _MIB}" for each in here)
                raise PlacementError(
                    f"models[..].slice.memory_mb: rank {rank} has {budget // _MIB} MiB for its "
                    f"models and is asked for {memory // _MIB} ({asked}); lower some, or raise "
                    "cache.memory_fraction"
                )
        return self


def _least_bytes(tenant: PlacedTenant, least: Mapping[int, Need]) -> int:
    """What a tenant is to have; what it needs, where it has a part of what others leave."""
    return tenant.memory or least[tenant.number].memory


def asked_rank(model: ModelConfig, has_experts: bool, num_ranks: int) -> int | None:
    """The plan rank, or ALL_RANKS, that a model asks for; None is any one rank.

    Raises:
        PlacementError: there is no such rank.
    """
    if model.rank >= num_ranks:
        raise PlacementError(
            f"models[..].rank: {model.name} asks for rank {model.rank}, and there are "
            f"{num_ranks}, from 0; change it, or leave it out"
        )
    spans_all = model.spread == "all" or (model.spread == "auto" and has_experts and model.rank < 0)
    # With processors to itself it takes no turns with others, also where there is one rank only.
    if model.slice.isolate == "time" and (spans_all or num_ranks == 1):
        return ALL_RANKS
    return max(model.rank, 0) if num_ranks == 1 or model.rank >= 0 else None


def _wish(number: int, model: ModelConfig, need: Need, budgets: Sequence[int]) -> PlacedTenant:
    rank = asked_rank(model, need.has_experts, len(budgets))
    tenant = PlacedTenant(
        number=number,
        model=model,
        rank=_ANY_RANK if rank is None else rank,
        share=model.slice.compute_percent / 100,
        memory=model.slice.memory_mb * _MIB or (0 if need.is_elastic else need.memory),
    )
    if tenant.memory > max(budgets):
        raise PlacementError(
            f"models[..].slice.memory_mb: {model.name} asks for {tenant.memory // _MIB} MiB, and "
            f"no rank has more than {max(budgets) // _MIB} for its models; lower it, or raise "
            "cache.memory_fraction"
        )
    if tenant.memory:
        _check_memory(tenant, tenant.memory, need)
    return tenant


def _check_memory(tenant: PlacedTenant, memory: int, need: Need) -> None:
    if memory < need.memory:
        raise PlacementError(
            f"models[..].slice.memory_mb: {tenant.model.name} needs {-(-need.memory // _MIB)} MiB "
            f"for weights, working space and one sequence of its longest, and has "
            f"{memory // _MIB}; raise it, or lower the model's max_context"
        )
