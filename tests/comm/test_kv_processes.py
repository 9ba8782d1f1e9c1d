"""The conformance suite against real processes, and peers that die in mid-transfer."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from floors import chain_to_torch
from house_imports import read_imports, read_sources
from kv_ends import SECRET, Echo, End, echo, ends, hello, hellos, random_parts, until
from moe_comm.kv.block import Parts
from moe_comm.kv.conformance.suite import suite
from moe_comm.kv.events import (
    Accepted,
    Landed,
    Offered,
    PeerLost,
    PeerReady,
    ReceiveFailed,
    SendFailed,
)
from moe_comm.kv.limits import KvLimits

ROOT = Path(__file__).parents[2]
STEADY = KvLimits(silence_seconds=5.0, bytes_in_flight=100_000)
HASTY = KvLimits(silence_seconds=0.5, bytes_in_flight=100_000)


@pytest.mark.parametrize(
    ("kind", "num_ranks", "layout", "cache_type", "order"),
    [
        ("gqa", 1, "PHSd", "bfloat16", "halves"),
        ("gqa", 2, "PSHd", "float16", "interleaved"),
        ("mla", 2, "PSHd", "float32", "interleaved"),
    ],
)
def test_an_engine_conforms(
    tmp_path: Path, kind: str, num_ranks: int, layout: str, cache_type: str, order: str
) -> None:
    changes = {"cache_type": cache_type, "rotary_order": order, "page_size": 16}
    with echo(tmp_path, hellos("e", kind, num_ranks, **changes), "--layout", layout) as engine:
        checks = suite(engine.addresses, SECRET)
        assert len(checks) >= 30
        assert [f"{each.name}: {fault}" for each in checks if (fault := each.fault())] == []


def test_the_command_tells_what_an_engine_does_wrong(tmp_path: Path) -> None:
    """An engine with too few pages for what the suite sends."""
    with echo(tmp_path, hellos("e", "gqa", 1), "--pages", "2") as engine:
        command = [sys.executable, "-m", "moe_comm.kv.conformance", *engine.addresses]
        options = ["--secret-file", str(engine.secret_file)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "FAILED float32: SendFailed: e:0 refused: no free pages" in lines
    assert "ok     refuses another model" in lines


def test_the_format_needs_no_torch() -> None:
    imports = read_imports(read_sources({"moe_comm": ROOT / "comm"}))
    assert chain_to_torch("moe_comm.kv.paged_tensors", imports)
    assert chain_to_torch("moe_comm.kv.conformance.__main__", imports) == ()
    assert chain_to_torch("moe_comm.kv.conformance.echo", imports) == ()


class Flow:
    """Sends to the echoing process, and takes back, as fast as that goes."""

    def __init__(self, end: End, peer: str, num_tokens: int) -> None:
        self.end = end
        self.owed: deque[tuple[int, int, Parts]] = deque()
        self.num_tokens = num_tokens
        end.endpoint.offer("r", num_tokens, [peer])

    def turn(self) -> None:
        for event in self.end.endpoint.poll():
            self.end.told.append(event)
            if isinstance(event, Accepted):
                self._owe()
            if isinstance(event, Offered):
                self.end.endpoint.accept("r", 0)
        failed = any(isinstance(event, SendFailed) for event in self.end.told)
        while self.owed and not failed and self.end.endpoint.send("r", *self.owed[0]):
            self.owed.popleft()

    def until(self, kind: type) -> None:
        def happened() -> bool:
            self.turn()
            return any(isinstance(event, kind) for event in self.end.told)

        until(happened)

    def _owe(self) -> None:
        chunk = random_parts(hello("x").layers[0], 500)
        for start in range(0, self.num_tokens, 500):
            self.owed.extend((layer, start, chunk) for layer in (0, 1))


def begin(end: End, engine: Echo, num_tokens: int) -> Flow:
    end.endpoint.connect(engine.addresses[0])
    ready = end.wait(PeerReady)
    assert isinstance(ready, PeerReady)
    return Flow(end, ready.hello.name, num_tokens)


def test_a_receiver_that_dies_fails_the_transfer_at_once(tmp_path: Path) -> None:
    with (
        ends(hello("a"), limits=STEADY) as (end,),
        echo(tmp_path, hellos("e", "gqa", 1), "--pages", "1600") as engine,
    ):
        flow = begin(end, engine, 24_000)
        until(lambda: flow.turn() or 0 < len(flow.owed) < 80)
        engine.process.kill()
        killed = time.monotonic()
        flow.until(PeerLost)
        assert time.monotonic() - killed < 2  # long before the silence would tell
        assert any(isinstance(event, SendFailed) for event in end.told)


def test_a_sender_that_dies_fails_the_transfer_at_once(tmp_path: Path) -> None:
    with (
        ends(hello("a"), limits=STEADY) as (end,),
        echo(
            tmp_path, hellos("e", "gqa", 1), "--bytes-in-flight", "100000", "--pages", "1600"
        ) as engine,
    ):
        flow = begin(end, engine, 24_000)
        flow.until(Landed)
        engine.process.kill()
        killed = time.monotonic()
        flow.until(PeerLost)
        assert time.monotonic() - killed < 2  # long before the silence would tell
        kinds = [type(event) for event in end.told]
        assert kinds.index(ReceiveFailed) < kinds.index(PeerLost)


def test_a_peer_that_hangs_is_lost_at_the_deadline(tmp_path: Path) -> None:
    with (
        ends(hello("a"), limits=HASTY) as (end,),
        echo(tmp_path, hellos("e", "gqa", 1), "--pages", "1600") as engine,
    ):
        flow = begin(end, engine, 24_000)
        until(lambda: flow.turn() or 0 < len(flow.owed) < 80)
        os.kill(engine.process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        flow.until(PeerLost)
        assert 0.2 < time.monotonic() - stopped < 4
        failed = next(event for event in end.told if isinstance(event, SendFailed))
        assert failed.reason == "e:0 was lost: nothing was heard of it for 0.5 s"
