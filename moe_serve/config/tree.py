"""The config: one frozen tree from one YAML file; see `load.py` for how it is read.

The annotations are the schema: `fields.py` reads types, units and ranges from them. It can say
more than this version serves: `--check` prices all of it and says what is not served yet.
"""

from dataclasses import dataclass, field
from typing import Annotated

from moe_placement.model.formats import FORMATS

from moe_serve.config.rules import NotEmpty, OneOf, Range
from moe_serve.config.units import Bytes, BytesPerSecond, Seconds
from moe_serve.config.workload import WorkloadConfig

Text = Annotated[str, NotEmpty()]
Count = Annotated[int, Range(1)]
CountOrAuto = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Dtype = Annotated[str, OneOf(("auto", "float32", "bfloat16", "float16"))]
WeightFormat = Annotated[str, OneOf(("auto", *FORMATS))]
DeviceKind = Annotated[str, OneOf(("cpu", "cuda", "npu", "emulated"))]
Role = Annotated[str, OneOf(("auto", "both", "prefill", "decode", "experts"))]
Collective = Annotated[str, OneOf(("auto", "mpi", "gloo", "nccl", "hccl"))]
Wire = Annotated[str, OneOf(("auto", "float32", "bfloat16", "float16", "int8"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceConfig:
    """A tenant's share of each rank's device that it is on.

    Attributes:
        compute_percent: of the device's time, from 1; 0 is an equal part of what the tenants that
            say it leave.
        memory_mb: MiB for weights, working space and KV cache; 0 is an equal part of what the
            tenants that say it leave.
        mode: share takes more time and more pages while others leave theirs idle, and gives pages
            back when they are wanted; hard never does.
        isolate: time shares the device in turns; sm has a part of its processors to itself, where
            the device has such parts.
    """

    compute_percent: Annotated[int, Range(0, 100)] = 0
    memory_mb: CountOrAuto = 0
    mode: Annotated[str, OneOf(("share", "hard"))] = "share"
    isolate: Annotated[str, OneOf(("time", "sm"))] = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One served model.

    Attributes:
        path: a Hugging Face checkpoint directory, `demo` for the built-in tiny model, or
            `builtin:NAME` for a published config.json without weights (for --check alone).
        name: what requests call it; the directory's name if empty.
        dtype: of weights, activations and KV cache: float32, bfloat16 or float16; auto follows
            config.json.
        max_context: the most tokens of prompt and answer; 0 is the model's own.
        slice: its share of the devices, where several models are served.
        spread: over all ranks, or whole on one of them; auto spreads models with experts.
        rank: the plan rank of a model that is on one; -1 is where the packing puts it.
    """

    path: Text
    name: str = ""
    dtype: Dtype = "auto"
    max_context: CountOrAuto = 0
    slice: SliceConfig = field(default_factory=SliceConfig)
    spread: Annotated[str, OneOf(("auto", "all", "one"))] = "auto"
    rank: Annotated[int, Range(-1)] = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """Attributes:
    tensor_parallel: adjacent ranks that share one copy of attention, dense and shared-expert
        weights and the vocabulary.
    """

    tensor_parallel: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Like devices under one name.

    Attributes:
        device: the kind that its ranks drive, one each.
        role: which phase its ranks do; auto is what serves placement.workload best.
        weights: format that weights are stored in: the model's dtype, which auto is, or a
            narrower one, of which this version serves bfloat16, float16 and int8.
        memory: bytes each rank may use; 0 asks the device.
        limit_memory: hold each rank's process to that, besides what it has before models come: who
            asks for more gets an error, its neighbours notice nothing.
        collective: what its ranks exchange tokens over: mpi or gloo on CPUs, nccl on GPUs,
            hccl on NPUs; auto asks the device. The same in all pools of one device kind.
        threads: CPU threads of each rank; 0 shares the host's cores evenly among its ranks, or
            is 1 where `deterministic` asks for one order of adding.
        compute_percent: of each rank's part of the host's processor time, never more, where other
            processes share the host; only on a cpu. Held by a control group, which takes root.
        hardware: what the planner takes its ranks for: a device of the catalogue by name, or a
            device file (.yaml, from the config's own folder) as `moe_plan calibrate` writes it.
            What an emulated pool emulates.
    """

    name: Text
    device: DeviceKind
    ranks: Count = 1
    role: Role = "both"
    weights: WeightFormat = "auto"
    memory: Bytes = 0
    limit_memory: bool = False
    collective: Collective = "auto"
    threads: CountOrAuto = 0
    compute_percent: Annotated[int, Range(1, 100)] = 100
    hardware: str = ""
    attention: AttentionConfig = field(default_factory=AttentionConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """A link between two pools; pools of one EP group need one.

    Attributes:
        between: names of the pools.
        bandwidth: bytes per second.
        latency: seconds.
        wire: precision in which tokens, or keys and values, cross it; auto is the model's dtype,
            which loses nothing; int8 has a scale for each row.
    """

    between: tuple[str, str]
    bandwidth: BytesPerSecond
    latency: Seconds = 0.0
    wire: Wire = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """Where experts go.

    Attributes:
        plan: `auto`, or a plan file, from the config's own folder.
        redundancy: replicas of busy experts, as a share of the experts; needs `load`.
        load: expert load trace (.npz), from the config's own folder, by which the automatic plan
            gives all ranks as many rows; without one it splits experts evenly.
        record: file (.npz) that gets the expert load of the run when the server drains.
        rebalance_every: seconds after which a new plan for the load of late is considered; 0
            never moves an expert.
        move_bytes_per_step: weights that each rank may take in beside one step while experts move.
        workload: what roles are decided by, and what is predicted of the server.
    """

    plan: Text = "auto"
    redundancy: Annotated[float, Range(0)] = 0.0
    load: str = ""
    record: str = ""
    rebalance_every: Seconds = 0.0
    move_bytes_per_step: Bytes = 16 << 20
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Attributes:
    max_tokens_per_step: token budget of one step of one rank.
    max_sequences: sequences that one rank runs at once.
    max_waiting: requests that one rank holds besides max_sequences; what comes on top is
        refused (HTTP 429).
    max_local_prefill: tokens of a prompt, beyond those that the rank which decodes has cached, up
        to which that rank computes them itself although other pools have the role prefill.
    max_step: seconds that a step may take while other models want the device: prompts are cut to
        fit. A share is kept to within about one such step.
    """

    max_tokens_per_step: Count = 2048
    max_sequences: Count = 256
    max_waiting: Count = 1024
    max_local_prefill: Count = 256
    max_step: Annotated[Seconds, Range(0, above=True)] = 0.004

    @property
    def max_live(self) -> int:
        """Requests that one rank holds at most, running and waiting."""
        return self.max_sequences + self.max_waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Attributes:
    page_size: tokens in a page.
    num_pages: pages of each rank; 0 takes what memory_fraction leaves.
    memory_fraction: share of the device's memory for weights, cache and working space; on a
        CPU, of the host's memory limit, shared by its ranks.
    prefix: keep and reuse the pages of finished prefixes.
    """

    page_size: Count = 64
    num_pages: CountOrAuto = 0
    memory_fraction: Share = 0.9
    prefix: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Attributes:
    host: loopback by default.
    port: 0 picks a free one.
    api_keys: file with one SHA-256 hex digest of an API key per line; empty asks for none.
    """

    host: Text = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 8000
    api_keys: str = ""
    admin_keys: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """How the ranks of several mpiruns find one another; one mpirun alone needs none of it.

    Attributes:
        address: host:port where the process of plan rank 0 waits for the others.
        secret: file with a secret that all of them hold; a loopback address may do without.
        wait: seconds after which a world that is not complete is given up.
        deadline: seconds of silence after which a rank of another mpirun, or the other end of a
            handover, counts as lost.
    """

    address: str = ""
    secret: str = ""
    wait: Seconds = 300.0
    deadline: Annotated[Seconds, Range(0.5)] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulationConfig:
    """Attributes:
    time_scale: all declared times of emulated devices and links last so many times longer.
    """

    time_scale: Annotated[float, Range(0, above=True)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyConfig:
    """Attributes:
    max_kl: the largest mean Kullback-Leibler divergence, in nats per token, of the served
        model's next-token distributions from the float32 reference's, over a few prompts before
        serving; 0 does not look. The reference is computed from the checkpoint, which is read
        once more.
    """

    max_kl: Annotated[float, Range(0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything `moe_serve` is told; `model:` in the file is short for one entry of models."""

    models: Annotated[tuple[ModelConfig, ...], NotEmpty()]
    pools: Annotated[tuple[PoolConfig, ...], NotEmpty()]
    links: tuple[LinkConfig, ...] = ()
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    emulation: EmulationConfig = field(default_factory=EmulationConfig)
    accuracy: AccuracyConfig = field(default_factory=AccuracyConfig)
    deterministic: bool = False

    @property
    def has_slices(self) -> bool:
        """Several models share the ranks, or may come to."""
        return len(self.models) > 1 or bool(self.server.admin_keys)

    @property
    def num_ranks(self) -> int:
        return sum(pool.ranks for pool in self.pools)

    def pool_of(self, rank: int) -> PoolConfig:
        """The pool of a plan rank; pools take their ranks in the order of the file."""
        owners = [pool for pool in self.pools for _ in range(pool.ranks)]
        return owners[rank]
