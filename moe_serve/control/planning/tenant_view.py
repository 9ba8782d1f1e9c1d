"""One of several served models as if it were alone: its own config, what it needs, what runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_serve.config.resolve import resolve, resolve_dtype
from moe_serve.config.tree import AttentionConfig, Config, ModelConfig, PlacementConfig
from moe_serve.config.validate import model_name
from moe_serve.control.planning.deployment import Deployment, plan_deployment, read_spec
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.control.planning.slices import Need, SlicePlan, asked_rank
from moe_serve.control.planning.task import task_of
from moe_serve.encoders.memory import encoder_bytes
from moe_serve.messages import ALL_RANKS, PlacedTenant
from moe_serve.types import Task

ReadJson = Callable[[ModelConfig], Mapping[str, Any]]

# More than any device has.
_ANY_BYTES = 1 << 50
# The shortest context that is worth serving.
_LEAST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is to be served beside others.

    Attributes:
        model: with a name and a dtype.
    """

    model: ModelConfig
    task: Task
    need: Need


def candidate_of(
    config: Config, model: ModelConfig, read_json: ReadJson = read_model_json
) -> Candidate:
    """What a model is and needs, by its files.

    Args:
        config: not resolved.

    Raises:
        MoeServeError: a model that cannot be served, or not by this config.
    """
    model_json = read_json(model)
    task = task_of(model_json)
    if task == "generate":
        return Candidate(
            replace(model, name=model_name(model)), task, _need(config, model, model_json)
        )
    model = replace(model, name=model_name(model), dtype=resolve_dtype(model, model_json))
    budget = config.scheduler.max_tokens_per_step
    memory = sum(encoder_bytes(Path(model.path), model.dtype, budget, model.max_context))
    return Candidate(model, task, Need(memory=memory, is_elastic=False))


def plan_slices(
    config: Config, memories: Sequence[int], read_json: ReadJson = read_model_json
) -> tuple[list[Candidate], SlicePlan]:
    """Which ranks each of a config's models is on, with which share.

    Args:
        config: not resolved.
        memories: bytes of each rank's device.

    Raises:
        MoeServeError: a model that cannot be served; or what does not fit, with both figures.
    """
    candidates = [candidate_of(config, model, read_json) for model in config.models]
    budgets = tuple(int(memory * config.cache.memory_fraction) for memory in memories)
    models = [each.model for each in candidates]
    needs = [each.need for each in candidates]
    return candidates, SlicePlan(budgets).with_models(models, needs, range(len(models)))


def tenant_view(config: Config, model: ModelConfig, rank: int) -> Config:
    """The config of a model that has its ranks, and all that it is given of them, to itself.

    Args:
        config: not resolved.
        rank: the only plan rank that it is on, which is rank 0 of its own world, or ALL_RANKS.
    """
    is_first = model_name(model) == model_name(config.models[0])
    config = replace(
        config,
        models=(model,),
        cache=replace(config.cache, memory_fraction=1.0),
        # What the file says of placement it says of its first model.
        placement=config.placement if is_first else PlacementConfig(),
    )
    if rank == ALL_RANKS:
        return config
    pool = replace(
        config.pool_of(rank), ranks=1, role="both", attention=AttentionConfig(), weights="auto"
    )
    return replace(config, pools=(pool,), links=(), placement=PlacementConfig())


def plan_tenant(
    config: Config,
    tenant: PlacedTenant,
    threads: int = 1,
    read_json: ReadJson = read_model_json,
) -> tuple[Config, Deployment]:
    """A placed model's own resolved config, and what runs on its ranks.

    Args:
        config: not resolved.
        threads: of each of this host's ranks.

    Raises:
        MoeServeError: as `plan_deployment` has them.
    """
    model_json = read_json(tenant.model)
    view = resolve(tenant_view(config, tenant.model, tenant.rank), model_json, threads)
    return view, plan_deployment(view, model_json, [tenant.memory] * view.num_ranks)


def _need(config: Config, model: ModelConfig, model_json: Mapping[str, Any]) -> Need:
    has_experts = read_spec(model_json).num_experts > 0
    rank = asked_rank(model, has_experts, config.num_ranks)
    view = resolve(tenant_view(config, model, 0 if rank is None else rank), model_json, 1)
    num_tokens = min(view.models[0].max_context, _LEAST_TOKENS)
    num_pages = -(-num_tokens // view.cache.page_size)
    view = replace(view, cache=replace(view.cache, num_pages=num_pages))
    deployment = plan_deployment(view, model_json, [_ANY_BYTES] * view.num_ranks)
    return Need(memory=max(each.total for each in deployment.memories), has_experts=has_experts)
