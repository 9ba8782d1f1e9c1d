"""Two pools on two hosts whose link is slow: the right tokens, in the time that the link needs."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from moe_placement.solver.workers.bridge import Bridge
from network_hosts import HERE, Hosts
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer
from world_runs import NUM_EXPERTS, Worlds, range_of

# 40 Mbit/s: what a link this slow takes hides what shared processors do.
BYTES_PER_SECOND, LATENCY = 5e6, 0.002
# What a shaper lets through at once, of each crossing.
BURST_BYTES = 4096
# The planner knows no packets' headers, not what rows say beside their numbers (here 13 % both),
# and no processors that are shared with other work.
FACTOR = 1.5
NUM_TRIALS = 4
# Of a step, from the first row that leaves to the last that is back: some come while experts work.
PARTS = ("dispatch", "experts")
NUM_TOKENS, NUM_LAYERS, NUM_CHOSEN, WIDTH = 2000, 3, 4, 96
NUM_CROSSINGS = 2 * NUM_LAYERS
PROMPTS = [[5, 6, 7], [8, 9, 10, 11], [12, 13], [14, 15, 16, 17, 18]]
POOLS = [
    ("front", 1, "both", [range_of(0, NUM_EXPERTS // 2)]),
    ("far", 1, "experts", [range_of(NUM_EXPERTS // 2, NUM_EXPERTS)]),
]

pytestmark = pytest.mark.slow


class Server:
    """Two pools and the client, which is on the front pool's host."""

    def __init__(self, url: str, hosts: Hosts, latency: float) -> None:
        self._url = url
        self._hosts = hosts
        self.latency = latency

    def complete(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[str]:
        body = {
            "prompt": prompts,
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = self._hosts.request("POST", f"{self._url}/v1/completions", body)
        return [choice["text"] for choice in json.loads(answer)["choices"]]

    def figures(self) -> dict[str, float]:
        """Seconds of the front rank's steps by part, and bytes by link, so far."""
        # The ranks tell them once a second.
        time.sleep(1.5)
        text = self._hosts.request("GET", f"{self._url}/metrics", None)
        samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in ("moe_serve_step_seconds_total", "moe_serve_link_bytes_total")
        ]
        return {
            each.labels.get("link") or each.labels["part"]: each.value
            for each in samples
            if "link" in each.labels or each.labels["rank"] == "0"
        }


@pytest.fixture(scope="module")
def shaped(hosts: Hosts) -> float:
    return hosts.shape(BYTES_PER_SECOND, LATENCY)


@pytest.fixture
def server(hosts: Hosts, shaped: float, worlds: Worlds, tmp_path: Path) -> Server:
    secret = tmp_path / "secret"
    secret.write_text("of both hosts\n")
    link = {"between": ["front", "far"], "bandwidth": BYTES_PER_SECOND, "latency": LATENCY}
    url, _ = worlds.start(
        POOLS,
        [partial(hosts.on, hosts.here), partial(hosts.on, hosts.there)],
        world={"address": f"{HERE}:29556", "secret": str(secret)},
        links=[link],
        scheduler={"max_tokens_per_step": 4096},
    )
    return Server(url, hosts, shaped)


def test_a_slow_link_costs_what_it_carries(
    server: Server, small: Path, reference: Callable[..., Any]
) -> None:
    expected, _ = reference(small, PROMPTS, 24)
    tokenizer = Tokenizer.from_file(str(small / "tokenizer.json"))
    assert server.complete(PROMPTS, 24) == [tokenizer.decode(ids) for ids in expected]
    random = np.random.default_rng(3)
    trials = [exchange_of(server, random.integers(5, 200, NUM_TOKENS)) for _ in range(NUM_TRIALS)]
    for seconds, num_bytes in trials:
        # So many tokens have experts far away.
        assert num_bytes > 0.85 * 2 * NUM_LAYERS * NUM_TOKENS * WIDTH * 4
        carried = (num_bytes - NUM_CROSSINGS * BURST_BYTES) / BYTES_PER_SECOND
        assert seconds > carried + NUM_CROSSINGS * server.latency
    assert min(trials)[0] < FACTOR * predicted(server.latency), trials


def exchange_of(server: Server, prompt: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Seconds in which a prompt's rows were exchanged, and the bytes that crossed."""
    before = server.figures()
    server.complete([prompt.tolist()], 1)
    after = server.figures()
    grown = {key: after[key] - before[key] for key in after}
    return sum(grown[part] for part in PARTS), grown["front>far"] + grown["far>front"]


def predicted(latency: float) -> float:
    """The planner's, for all layers of one step, over a declared link of the same figures."""
    apart = 1 - np.eye(2)
    bridge = Bridge(
        outward_bytes=WIDTH * 4,
        return_bytes=WIDTH * 4,
        chosen=NUM_CHOSEN,
        devices_P=np.ones(2),
        inner_P=np.full(2, np.inf),
        seconds_per_byte_PP=apart / BYTES_PER_SECOND,
        latency=latency,
    )
    mass_LP = np.full((NUM_LAYERS, 2), 0.5)
    return float(bridge.layer_seconds(np.array([NUM_TOKENS, 0.0]), mass_LP).sum())
