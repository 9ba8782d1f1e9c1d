"""The ranks of a moe_serve config as devices, and what a model that spans them takes of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from moe_placement.equal_split import equal_split
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.section import Section
from moe_placement.hardware.units import BYTES, COUNT, SHARE, TEXT, Kind
from moe_placement.model.spec import ModelSpec
from moe_placement.packing.known_devices import KnownDevice, cluster_devices, one_of
from moe_placement.packing.model_memory import bytes_by_rank
from moe_placement.packing.slices import PackDevice
from moe_placement.plan import Plan, PoolPlan, Role
from moe_placement.plan_file import load as load_plan

_SIZE: Kind[int] = Kind(BYTES.expected, lambda value: 0 if value == 0 else BYTES.parse(value))
_ROLES: dict[str, Role] = {"prefill": "prefill", "decode": "decode", "experts": "experts"}
_FRACTION = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ServePool:
    """One entry of `pools`, as far as packing needs it.

    Attributes:
        weights: format that it stores weights in; auto is that of the model.
    """

    name: str
    device: str
    ranks: tuple[int, ...]
    role: Role
    weights: str
    tensor_parallel: int

    def plan(self, dtype: str) -> PoolPlan:
        return PoolPlan(
            self.name,
            self.device,
            self.ranks,
            self.role,
            dtype if self.weights == "auto" else self.weights,
            self.tensor_parallel,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeRanks:
    """Attributes:
    devices: by plan rank.
    limits: most tokens of a step and most sequences, of one rank.
    plan_file: where the experts of the config's first model are; None splits them evenly.
    """

    pools: tuple[ServePool, ...]
    devices: tuple[PackDevice, ...]
    limits: tuple[int, int]
    plan_file: Path | None

    def spanning_bytes(
        self, spec: ModelSpec, dtype: str, kv_tokens: int, *, is_first: bool
    ) -> tuple[int, ...]:
        """What a model that is on all ranks takes of each at least.

        Raises:
            PlanError: a plan file that is of another model or of other ranks.
        """
        plan = self._plan(spec, dtype, is_first)
        return bytes_by_rank(spec, plan, kv_tokens=kv_tokens, limits=self.limits)

    def _plan(self, spec: ModelSpec, dtype: str, is_first: bool) -> Plan:
        if self.plan_file is not None and is_first:
            return load_plan(self.plan_file)
        pools = [pool.plan(dtype) for pool in self.pools]
        return equal_split("spanning", spec.num_experts, spec.moe_layers, pools)


def read_ranks(document: Section, cluster: ClusterSpec | None) -> ServeRanks:
    """The ranks of a config, in plan order, each with the memory that its tenants may have.

    Args:
        cluster: what the ranks' devices are, one for each, instead of what the pools say.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
    """
    fraction = document.section("cache").get("memory_fraction", SHARE, _FRACTION)
    given = None if cluster is None else list(cluster_devices(cluster))
    pools: list[ServePool] = []
    devices: list[PackDevice] = []
    for section in document.sections("pools"):
        pool = _read_pool(section, len(devices))
        pools.append(pool)
        here = None if given is None else given[len(devices) :][: len(pool.ranks)]
        devices += _read_devices(section, pool, here)
    if not devices:
        raise document.error("pools is missing; list the pools of ranks that serve")
    if given is not None and len(given) != len(devices):
        raise document.error(
            f"pools have {len(devices)} ranks, and {len(given)} devices are given for them; give "
            "as many"
        )
    scheduler = document.section("scheduler")
    plan = document.section("placement").get("plan", TEXT, "auto")
    return ServeRanks(
        pools=tuple(pools),
        devices=tuple(replace(one, memory=int(one.memory * fraction)) for one in devices),
        limits=(
            scheduler.get("max_tokens_per_step", COUNT, 2048),
            scheduler.get("max_sequences", COUNT, 256),
        ),
        plan_file=None if plan == "auto" else Path(document.file).parent / plan,
    )


def _read_pool(section: Section, first: int) -> ServePool:
    attention = section.section("attention")
    return ServePool(
        name=section.take("name", TEXT),
        device=section.take("device", one_of("cpu", "cuda", "npu", "emulated")),
        ranks=tuple(range(first, first + section.get("ranks", COUNT, 1))),
        role=_ROLES.get(section.get("role", TEXT, "both"), "both"),
        weights=section.get("weights", TEXT, "auto"),
        tensor_parallel=attention.get("tensor_parallel", COUNT, 1),
    )


def _read_devices(
    section: Section, pool: ServePool, given: list[KnownDevice] | None
) -> Iterator[PackDevice]:
    """A device for each rank: what is given, or else what the pool's hardware is."""
    memory = section.get("memory", _SIZE, 0)
    hardware = section.find("hardware", TEXT)
    bandwidth = 0.0
    if hardware is not None:
        is_file = hardware.endswith((".yaml", ".yml"))
        spec = find_device(Path(section.file).parent / hardware if is_file else hardware)
        memory, bandwidth = memory or spec.memory_bytes, spec.bandwidth
    for number, rank in enumerate(pool.ranks):
        if given is not None and number < len(given):
            figures = given[number].figures
            memory, bandwidth = figures.memory, figures.bandwidth
        if not memory and given is None:
            raise section.error(
                f"{section.where}.memory is missing; write what each rank may use, name the "
                "pool's hardware, or give --devices or --cluster"
            )
        yield PackDevice(name=f"{pool.name}:{rank}", memory=memory, bandwidth=bandwidth)
