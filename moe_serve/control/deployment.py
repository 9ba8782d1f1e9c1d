"""Config and model to what will run: spec, plan, and what each rank's memory must hold."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from moe_placement.memory.rank_memory import RankMemory, check_model, rank_memory
from moe_placement.memory.report import fit_problems
from moe_placement.model.architectures import UnsupportedModelError
from moe_placement.model.fields import SpecError
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError, PoolPlan, Role
from moe_placement.plan_file import load

from moe_serve.config.tree import Config
from moe_serve.config.unserved import unserved_architecture
from moe_serve.control.automatic_plan import automatic_plan
from moe_serve.control.together import Gathering
from moe_serve.errors import AgreedError, CheckpointError, PlacementError, UnsupportedError

logger = logging.getLogger(__name__)

_ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model on its ranks.

    Attributes:
        memories: by plan rank.
    """

    spec: ModelSpec
    plan: Plan
    memories: tuple[RankMemory, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each pool in which a rank lacks room."""
        return fit_problems(self.memories)

    @property
    def unserved(self) -> tuple[str, ...]:
        """A sentence for each thing in model and plan that this version does not serve."""
        return (*unserved_architecture(self.spec.architecture), *self._unserved_groups())

    def _unserved_groups(self) -> Iterator[str]:
        groups = self.plan.ep_groups()
        if len(groups) > 1:
            yield (
                f"placement.plan: this version serves one expert-parallel group, the plan has "
                f"{len(groups)}; serve one of them, with its pools and layers alone"
            )

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
        UnsupportedError: an architecture that this version does not know.
        CheckpointError: a config.json whose numbers cannot describe a model.
        PlacementError: a plan file that is not of this model or these pools.
    """
    spec = read_spec(model_json)
    try:
        plan = _plan(config, spec)
        memories = tuple(
            _memory(config, spec, plan, rank, device_bytes)
            for rank, device_bytes in enumerate(device_bytes_by_rank)
        )
    except PlanError as error:
        key = "load" if config.placement.load else "plan"
        raise PlacementError(f"placement.{key}: {error}") from error
    assert len(memories) == plan.num_ranks
    return Deployment(spec, plan, memories)


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
    """The pools with their plan ranks: numbered from 0 in the order of the config."""
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
            )
        )
        first += pool.ranks
    return tuple(plans)


def _plan(config: Config, spec: ModelSpec) -> Plan:
    pools = pool_plans(config)
    if config.placement.plan == "auto":
        return automatic_plan(config.models[0].name, spec, pools, config.placement)
    plan = load(Path(config.placement.plan))
    check_model(plan, spec)
    if plan.model != config.models[0].name:
        logger.warning(
            "placement.plan: %s was made for the model %s, and runs %s now",
            config.placement.plan,
            plan.model,
            config.models[0].name,
        )
    for planned, wanted in zip(plan.pools, pools, strict=False):
        # Which EP group a rank is in, the plan alone says.
        if replace(planned, ep_group=0, num_ep_groups=1) != wanted:
            raise PlanError(
                f"{config.placement.plan} has {planned}, the config has {wanted}; make them agree"
            )
    if len(plan.pools) != len(pools):
        raise PlanError(
            f"{config.placement.plan} has {len(plan.pools)} pools, the config has {len(pools)}"
        )
    return plan


def _memory(
    config: Config, spec: ModelSpec, plan: Plan, rank: int, device_bytes: int
) -> RankMemory:
    return rank_memory(
        spec,
        plan,
        rank,
        activation_bytes=_ACTIVATION_BYTES[config.models[0].dtype],
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
        page_size=config.cache.page_size,
        num_pages=config.cache.num_pages,
        device_bytes=device_bytes,
        memory_fraction=config.cache.memory_fraction,
        max_context=config.models[0].max_context or None,
    )
