"""What the rest of the engine must know of a model before its weights are there."""

from collections.abc import Iterable
from dataclasses import dataclass

from moe_serve.layers.context import CacheSpec
from moe_serve.models.settings import Settings


@dataclass(frozen=True, slots=True)
class ExpertNames:
    """What a checkpoint calls its experts.

    Attributes:
        block: the part of a layer that gate and experts are in.
    """

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """Attributes:
    num_chosen: routed experts of each token.
    expert_width: hidden width of a routed expert.
    shared_width: hidden width of all shared experts together; 0 has none.
    """

    width: int
    num_experts: int
    num_chosen: int
    expert_width: int
    shared_width: int = 0
    names: ExpertNames = ExpertNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Read from config.json alone.

    Attributes:
        width: of a token between layers.
        context_length: the most tokens of prompt and answer together.
        cache_specs: by layer.
        moe: None in a dense model.
        moe_layers: the layers whose feed-forward is a mixture of experts, ascending.
    """

    architecture: str
    vocab_size: int
    width: int
    context_length: int
    cache_specs: tuple[CacheSpec, ...]
    moe: MoeShape | None = None
    moe_layers: tuple[int, ...] = ()

    @property
    def num_layers(self) -> int:
        return len(self.cache_specs)

    @property
    def num_experts(self) -> int:
        """Routed experts of each MoE layer; 0 in a dense model."""
        return self.moe.num_experts if self.moe else 0


def read_moe(settings: Settings) -> MoeShape:
    expert_width = settings.integer("moe_intermediate_size")
    return MoeShape(
        width=settings.integer("hidden_size"),
        num_experts=settings.integer("n_routed_experts", "num_experts", "num_local_experts"),
        num_chosen=settings.integer("num_experts_per_tok"),
        expert_width=expert_width,
        shared_width=settings.integer("n_shared_experts", default=0) * expert_width,
    )


def read_shape(
    settings: Settings,
    cache_spec: CacheSpec,
    moe: MoeShape | None = None,
    moe_layers: Iterable[int] = (),
) -> ModelShape:
    """Raises UnsupportedError for an activation other than SiLU."""
    settings.require("hidden_act", "silu", "silu")
    return ModelShape(
        architecture=settings.architecture,
        vocab_size=settings.integer("vocab_size"),
        width=settings.integer("hidden_size"),
        context_length=settings.integer("max_position_embeddings"),
        cache_specs=(cache_spec,) * settings.integer("num_hidden_layers"),
        moe=moe,
        moe_layers=tuple(moe_layers),
    )
