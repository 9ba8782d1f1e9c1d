"""Config and model to what will run: spec, plan, and what each rank's memory must hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.section import HardwareError
from moe_placement.memory.rank_memory import RankMemory, rank_memory
from moe_placement.memory.rank_weights import expert_bytes
from moe_placement.memory.report import fit_problems
from moe_placement.model.architectures import UnsupportedModelError
from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError, PoolPlan, Role

from moe_serve.config.tree import Config
from moe_serve.config.unserved import unserved_architecture
from moe_serve.control.meeting.together import Gathering
from moe_serve.control.planning.automatic_plan import ChosenPlan, MemoriesOf, automatic_plan
from moe_serve.control.planning.groups import check_groups
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.control.planning.plan_of_file import plan_of_file
from moe_serve.control.planning.pool_checks import check_pools
from moe_serve.errors import (
    AgreedError,
    CheckpointError,
    ConfigError,
    PlacementError,
    UnsupportedError,
)

ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model on its ranks.

    Attributes:
        memories: by plan rank.
    """

    spec: ModelSpec
    chosen: ChosenPlan
    memories: tuple[RankMemory, ...]

    @property
    def plan(self) -> Plan:
        return self.chosen.plan

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the plan is what it is."""
        return self.chosen.reasons

    def with_plan(self, plan: Plan) -> "Deployment":
        """The same ranks under another plan; their memories stay as they were priced."""
        return replace(self, chosen=ChosenPlan(plan))

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each pool in which a rank lacks room."""
        return fit_problems(self.memories)

    @property
    def unserved(self) -> tuple[str, ...]:
        """A sentence for each thing in model and plan that this version does not serve."""
        return tuple(unserved_architecture(self.spec.architecture))

    def require_served(self) -> None:
        """Refuse to run a plan that can only be checked.

        Raises:
            UnsupportedError: what of it this version does not serve.
        """
        for sentence in self.unserved:
            raise UnsupportedError(sentence)

    def require_fit(self) -> None:
        """Refuse to run what does not fit.

        Raises:
            PlacementError: rank, bytes needed, bytes free, and what to change.
        """
        if self.problems:
            raise PlacementError("; ".join(self.problems))


def plan_deployment(
    config: Config, model_json: Mapping[str, Any], device_bytes_by_rank: Sequence[int]
) -> Deployment:
    """Plan the resolved config; `--check` and bring-up both get what runs from here.

    Args:
        model_json: the model's config.json.
        device_bytes_by_rank: what each plan rank may use of its device; ranks that share a
            host's memory each have their share.

    Raises:
        UnsupportedError: an architecture that this version does not know, or heads that ranks
            cannot share.
        CheckpointError: a config.json whose numbers cannot describe a model.
        ConfigError: hardware that is not known or lacks a weight format, roles that make no
            sense, or pools of one EP group without a link.
        PlacementError: a plan file that is not of this model or these pools.
    """
    spec = read_spec(model_json)
    check_pools(config, spec)
    hardware = pool_hardware(config)

    def memories_of(plan: Plan) -> tuple[RankMemory, ...]:
        return tuple(
            memory_of(config, spec, plan, rank, device_bytes)
            for rank, device_bytes in enumerate(device_bytes_by_rank)
        )

    try:
        chosen = _plan(config, spec, hardware, memories_of)
        memories = memories_of(chosen.plan)
    except PlanError as error:
        key = "load" if config.placement.load else "plan"
        raise PlacementError(f"placement.{key}: {error}") from error
    except HardwareError as error:
        raise ConfigError(f"pools[..].hardware: {error}") from error
    check_groups(config, chosen.plan)
    return Deployment(spec, chosen, memories)


def require_one_plan(ranks: Gathering, plan: Plan) -> None:
    """Refuse ranks of different plans: they would send each other rows of the wrong experts.

    Raises:
        AgreedError: names the lowest rank that differs from rank 0.
    """
    digests = ranks.allgather_bytes(sha256(repr(plan).encode()).digest())
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise AgreedError(
                f"placement.plan: rank {rank} read another plan than rank 0; "
                "give every rank the same plan file"
            )


def read_spec(model_json: Mapping[str, Any]) -> ModelSpec:
    """The model as the planner counts it; errors as `plan_deployment` has them."""
    try:
        return ModelSpec.from_config(model_json)
    except UnsupportedModelError as error:
        raise UnsupportedError(str(error)) from error
    except SpecError as error:
        raise CheckpointError(str(error)) from error


def pool_plans(config: Config) -> tuple[PoolPlan, ...]:
    """The pools with their plan ranks: numbered from 0 in the order of the config.

    Prefill pools are an EP group of their own, beside that of all the others.
    """
    apart = any(pool.role != "prefill" for pool in config.pools)
    plans: list[PoolPlan] = []
    first = 0
    for pool in config.pools:
        plans.append(
            PoolPlan(
                name=pool.name,
                device=pool.device,
                ranks=tuple(range(first, first + pool.ranks)),
                role=cast(Role, pool.role),
                weight_format=pool.weights,
                tensor_parallel=pool.attention.tensor_parallel,
                ep_group=int(apart and pool.role == "prefill"),
            )
        )
        first += pool.ranks
    return tuple(plans)


def _plan(
    config: Config, spec: ModelSpec, hardware: Mapping[str, DeviceSpec], memories_of: MemoriesOf
) -> ChosenPlan:
    pools = pool_plans(config)
    if config.placement.plan == "auto":
        activation_bytes = ACTIVATION_BYTES[config.models[0].dtype]
        return automatic_plan(config, spec, pools, hardware, memories_of, activation_bytes)
    return plan_of_file(config, spec, pools)


def memory_of(
    config: Config, spec: ModelSpec, plan: Plan, rank: int, device_bytes: int
) -> RankMemory:
    """What one plan rank must hold of the resolved config's model."""
    moves = bool(config.placement.rebalance_every) and plan.num_experts > 0
    pool = plan.pool_of(rank)
    expert = expert_bytes(spec, pool.weight_format, pool.device)
    return rank_memory(
        spec,
        plan,
        rank,
        activation_bytes=ACTIVATION_BYTES[config.models[0].dtype],
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
        page_size=config.cache.page_size,
        num_pages=config.cache.num_pages,
        device_bytes=device_bytes,
        memory_fraction=config.cache.memory_fraction,
        max_context=config.models[0].max_context or None,
        moving=moves * max(config.placement.move_bytes_per_step, expert),
    )
