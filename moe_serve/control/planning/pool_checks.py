"""What pools cannot be for the model that they serve."""

from moe_placement.model.spec import ModelSpec

from moe_serve.config.heads import check_heads
from moe_serve.config.tree import Config
from moe_serve.errors import ConfigError, UnsupportedError


def check_pools(config: Config, spec: ModelSpec) -> None:
    """Refuse pools that have nothing to do, or that cannot share the model's heads.

    Raises:
        ConfigError: an experts pool for a model without experts.
        UnsupportedError: a tensor-parallel degree that does not divide the heads.
    """
    for index, pool in enumerate(config.pools):
        if pool.role == "experts" and not spec.num_experts:
            raise ConfigError(
                f"pools[{index}].role: {spec.architecture} has no experts for a pool with the "
                "role experts; give the pool another role"
            )
        for layer, _ in spec.attention_layers:
            try:
                check_heads(pool.attention.tensor_parallel, layer.num_heads, layer.num_kv_heads)
            except UnsupportedError as error:
                raise UnsupportedError(f"pools[{index}].{error}") from error
