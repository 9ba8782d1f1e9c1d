"""What a server needs besides its config, looked at before anything heavy is loaded."""

from pathlib import Path

from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config
from moe_serve.config.validate import DEMO
from moe_serve.control.meeting.host import host_memory
from moe_serve.control.planning.model_json import require_weights
from moe_serve.errors import ConfigError
from moe_serve.published import published_json

# More than any device has: what is not known yet keeps nothing from fitting.
_UNKNOWN_BYTES = 1 << 50


def check_models(config: Config) -> None:
    """Refuse models that no rank could load.

    Raises:
        ConfigError: a model without weights, or a directory without a readable config.json.
    """
    require_weights(config)
    for model in config.models:
        published_json(model)


def check_memory(config: Config, rank: int) -> None:
    """Refuse, on a plan rank's host, a pool that declares more memory than that has.

    Raises:
        ConfigError: both figures.
    """
    pool, found = config.pool_of(rank), host_memory()
    index = config.pools.index(pool)
    declared = pool.memory
    if pool.device == "emulated" and not declared:
        from moe_serve.control.planning.hardware import declared_memory

        declared = declared_memory(config)[index]
    if pool.device in ("cpu", "emulated") and declared > found:
        raise ConfigError(
            f"pools[{index}].memory: {declared / 2**30:.1f} GiB for each rank, and this host has "
            f"{found / 2**30:.1f} GiB; set it lower"
        )


def check_plan(config: Config) -> None:
    """Refuse what cannot be planned, or does not fit in memory that is declared; all ranks of all
    mpiruns find the same.

    Roles that are to be chosen are left to bring-up, which has time for it.

    Raises:
        MoeServeError: as `plan_deployment` has them; or what does not fit.
    """
    from moe_serve.control.planning.deployment import plan_deployment
    from moe_serve.control.planning.hardware import declared_memory

    memory = [
        declared or _UNKNOWN_BYTES
        for pool, declared in zip(config.pools, declared_memory(config), strict=True)
        for _ in range(pool.ranks)
    ]
    if config.has_slices:
        from moe_serve.check_slices import SlicesReport

        SlicesReport.of(config, memory).require_fit()
    elif all(pool.role != "auto" for pool in config.pools):
        model_json = published_json(config.models[0])
        resolved = resolve(config, model_json, 1)
        deployment = plan_deployment(resolved, model_json, memory)
        deployment.require_served()
        deployment.require_fit()


def check_front_end(config: Config) -> None:
    """Refuse, on the host of the front end, what that could not start with.

    Raises:
        ConfigError: a key file that cannot be read or has no keys.
        CheckpointError: a tokenizer that is missing or cannot be read.
    """
    from moe_serve.edge.auth import read_keys
    from moe_serve.edge.tokenizer_file import check_tokenizer

    for key in ("api_keys", "admin_keys"):
        if path := getattr(config.server, key):
            read_keys(Path(path), f"server.{key}")
    for model in config.models:
        if model.path != DEMO:
            check_tokenizer(Path(model.path))
