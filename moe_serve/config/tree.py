"""The config: one frozen tree from one YAML file; see `load.py` for how it is read."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One served model.

    Attributes:
        path: a Hugging Face checkpoint directory, or `demo` for the built-in tiny model.
        name: what requests call it; the directory's name if empty.
        dtype: of activations and KV cache: float32, bfloat16 or float16; auto follows config.json.
        max_context: the most tokens of prompt and answer; 0 is the model's own.
    """

    path: str
    name: str = ""
    dtype: str = "auto"
    max_context: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Like devices under one name.

    Attributes:
        weights: weight format of the pool: float32, bfloat16, float16; auto is the model's dtype.
        memory: bytes each rank may use; 0 asks the device.
        collective: mpi, gloo, nccl, hccl; auto asks the device.
        threads: CPU threads of each rank; 0 shares the host's cores evenly among its ranks.
    """

    name: str
    device: str
    ranks: int = 1
    role: str = "both"
    weights: str = "auto"
    memory: int = 0
    collective: str = "auto"
    threads: int = 0
    attention: AttentionConfig = field(default_factory=AttentionConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """A link between two pools: bytes per second and seconds."""

    between: tuple[str, str]
    bandwidth: float
    latency: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """Where experts go.

    Attributes:
        plan: `auto`, or a plan file.
        redundancy: extra expert slots, as a share of the experts.
        load: expert load trace; empty assumes an even load.
    """

    plan: str = "auto"
    redundancy: float = 0.0
    load: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Attributes:
    max_tokens_per_step: token budget of one step of one rank.
    max_sequences: sequences that one rank runs at once.
    max_waiting: requests that may wait at one rank before new ones are refused (HTTP 429).
    """

    max_tokens_per_step: int = 2048
    max_sequences: int = 256
    max_waiting: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Attributes:
    page_size: tokens in a page.
    num_pages: pages of each rank; 0 takes what memory_fraction leaves.
    memory_fraction: share of the device's memory for weights, cache and working space; on a
        CPU, of the host's memory limit, shared by its ranks.
    prefix: keep and reuse the pages of finished prefixes.
    """

    page_size: int = 64
    num_pages: int = 0
    memory_fraction: float = 0.9
    prefix: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Attributes:
    host: loopback by default.
    port: 0 picks a free one.
    api_keys: file with one SHA-256 hex digest of an API key per line; empty asks for none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything `moe_serve` is told; `model:` in the file is short for one entry of models."""

    models: tuple[ModelConfig, ...]
    pools: tuple[PoolConfig, ...]
    links: tuple[LinkConfig, ...] = ()
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    deterministic: bool = False
    source: Path | None = None

    @property
    def num_ranks(self) -> int:
        return sum(pool.ranks for pool in self.pools)
