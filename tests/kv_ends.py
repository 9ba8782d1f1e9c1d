"""KV endpoints for tests: declarations, numbers, processes that echo, and waits with a deadline."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from moe_comm.kv.block import Parts
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import KvEvent, Landed, PeerReady
from moe_comm.kv.hello import GroupedLayer, Hello, LatentLayer, Layer
from moe_comm.kv.limits import KvLimits
from moe_comm.kv.number_types import WIRE_TYPES
from moe_comm.kv.routes import even_heads

SECRET = b"only for tests"
QUICK = KvLimits(silence_seconds=0.5, idle_seconds=0.5, connect_seconds=2.0)
PATIENT = KvLimits(silence_seconds=5.0)


def grouped(num_heads: int = 4, rank: int = 0, num_ranks: int = 1) -> GroupedLayer:
    first, end = even_heads(num_heads, rank, num_ranks)
    return GroupedLayer(
        num_kv_heads=num_heads,
        first_head=first,
        end_head=end,
        key_width=8,
        value_width=6,
        rotary_width=4,
    )


def latent() -> LatentLayer:
    return LatentLayer(latent_width=12, rotary_width=4)


def hello(name: str, layers: Sequence[Layer] = (), **changes: object) -> Hello:
    whole = Hello(
        name=name,
        model_name="model",
        model_digest="digest",
        layers=tuple(layers) or (grouped(), grouped()),
        cache_type="float32",
        sends=WIRE_TYPES,
        receives=WIRE_TYPES,
        page_size=16,
        rotary_order="halves",
    )
    return msgspec.structs.replace(whole, **changes)


def hellos(name: str, kind: str, num_ranks: int, **changes: object) -> list[Hello]:
    """All ranks of one side, two layers each."""
    return [
        hello(
            f"{name}:{rank}",
            [latent() if kind == "mla" else grouped(4, rank, num_ranks)] * 2,
            rank=rank,
            num_ranks=num_ranks,
            **changes,
        )
        for rank in range(num_ranks)
    ]


def random_parts(layer: Layer, num_tokens: int, seed: int = 0) -> Parts:
    """float32."""
    random = np.random.default_rng(seed)
    shape = num_tokens, layer.end_head - layer.first_head
    first, second = (
        random.standard_normal((*shape, width), dtype=np.float32) for width in layer.widths
    )
    return first, second


@dataclass
class End:
    """An endpoint and all that it has told."""

    endpoint: KvEndpoint
    told: list[KvEvent] = field(default_factory=list)

    def wait(self, kind: type, seconds: float = 5.0) -> KvEvent:
        """The first event of this kind, which is then no longer in `told`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.told += self.endpoint.poll()
            for event in self.told:
                if isinstance(event, kind):
                    self.told.remove(event) if not isinstance(event, Landed) else None
                    return event
            time.sleep(0.002)
        raise TimeoutError(f"no {kind.__name__} within {seconds} s; told: {self.told}")

    def landed(self) -> list[Landed]:
        return [event for event in self.told if isinstance(event, Landed)]


@contextmanager
def ends(*declared: Hello, limits: KvLimits = PATIENT) -> Iterator[list[End]]:
    """An endpoint for each, not connected yet."""
    made = [End(KvEndpoint(each, SECRET, limits=limits)) for each in declared]
    try:
        yield made
    finally:
        for end in made:
            end.endpoint.close()


@contextmanager
def pair(sender: Hello, receiver: Hello, limits: KvLimits = PATIENT) -> Iterator[tuple[End, End]]:
    """Two endpoints in this process that have met."""
    with ends(sender, receiver, limits=limits) as (first, second):
        meet(first, second)
        yield first, second


def meet(first: End, second: End) -> None:
    first.endpoint.connect(f"127.0.0.1:{second.endpoint.port}")
    first.wait(PeerReady)
    second.wait(PeerReady)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


@dataclass(frozen=True)
class Echo:
    process: subprocess.Popen[str]
    addresses: list[str]
    secret_file: Path


@contextmanager
def echo(folder: Path, declared: Sequence[Hello], *options: str) -> Iterator[Echo]:
    """A process that echoes, with one endpoint for each declaration."""
    secret_file = folder / "secret"
    secret_file.write_bytes(SECRET)
    (folder / "hellos.json").write_bytes(msgspec.json.encode(list(declared)))
    command = [sys.executable, "-m", "moe_comm.kv.conformance.echo", str(folder / "hellos.json")]
    process = subprocess.Popen(
        [*command, "--secret-file", str(secret_file), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Echo(process, process.stdout.readline().split(), secret_file)
    finally:
        process.kill()
        process.wait(5)
        process.stdin.close()
        process.stdout.close()
