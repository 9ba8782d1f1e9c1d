"""The load of the phases benchmark, and the client that sends it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from moe_serve.bench.phases_client import drive
from moe_serve.bench.phases_load import RequestKind, make_arrivals, mean_workload
from moe_serve.bench.stream import token_times
from moe_serve.errors import ConfigError

SHORT = RequestKind(name="short", prompt_tokens=32, output_tokens=48, rate=6.0)
LONG = RequestKind(name="long", prompt_tokens=512, output_tokens=16, rate=2.0)
KINDS = (SHORT, LONG)


def test_arrivals_are_two_poisson_streams_that_a_seed_repeats() -> None:
    arrivals = make_arrivals(KINDS, 400.0, seed=1)
    assert arrivals == make_arrivals(KINDS, 400.0, seed=1) != make_arrivals(KINDS, 400.0, seed=2)
    assert [each.at for each in arrivals] == sorted(each.at for each in arrivals)
    for kind in KINDS:
        times = np.array([each.at for each in arrivals if each.kind is kind])
        assert len(times) == pytest.approx(400 * kind.rate, rel=0.1)
        gaps = np.diff(times)
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)
    assert all(len(each.prompt_ids) == each.kind.prompt_tokens for each in arrivals)
    assert len({each.prompt_ids[:16] for each in arrivals}) == len(arrivals)


def test_a_kind_that_never_comes_is_named() -> None:
    rare = replace(LONG, rate=1e-6)
    with pytest.raises(ConfigError, match=r"no long request comes in 2 s at 1e-06 a second"):
        make_arrivals((SHORT, rare), 2.0, seed=0)


def test_the_mean_request_is_weighted_by_rate() -> None:
    workload = mean_workload(KINDS)
    assert workload.rate == 8.0
    assert workload.prompt_tokens == (6 * 32 + 2 * 512) / 8
    assert workload.output_tokens == 40.0
    squares = (6 * 32**2 + 2 * 512**2) / 8
    assert workload.prompt_cv == pytest.approx((squares / 152**2 - 1) ** 0.5)


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n"


def test_only_text_counts_as_a_token() -> None:
    lines = [event("a"), b"\n", event("b"), event(""), b"data: [DONE]\n"]
    assert len(list(token_times(iter(lines), lambda: False))) == 2
    refusal = b'data: {"error": {"message": "the rank is gone"}}\n'
    with pytest.raises(ValueError, match="the rank is gone"):
        list(token_times(iter([event("a"), refusal]), lambda: False))
    with pytest.raises(InterruptedError):
        list(token_times(iter([event("a")]), lambda: True))


Write = Callable[[bytes], object]


@contextmanager
def answering(write_answer: Callable[[Write], None]) -> Iterator[str]:
    """A server that streams what it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            write_answer(self.wfile.write)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_client_tells_first_tokens_from_gaps() -> None:
    def write_answer(write: Write) -> None:
        for pause, text in ((0.1, "one "), (0.02, "two "), (0.05, "three")):
            time.sleep(pause)
            write(event(text))

    kinds = (replace(SHORT, output_tokens=3, rate=20.0),)
    arrivals = make_arrivals(kinds, 0.3, seed=0)
    with answering(write_answer) as url:
        begun = time.perf_counter()
        answers = drive(url, arrivals, 20.0)
        assert time.perf_counter() - begun >= arrivals[-1].at + 0.17
    assert len(answers) == len(arrivals)
    for answer in answers:
        assert answer.ttft > 0.09 and len(answer.gaps) == 2 and answer.gaps[1] > 0.02
        assert answer.ttft + sum(answer.gaps) >= 0.16
        assert answer.tpot == pytest.approx(sum(answer.gaps) / 2)


def test_a_short_answer_and_a_dead_server_are_said() -> None:
    arrivals = make_arrivals((replace(SHORT, rate=50.0),), 0.1, seed=0)
    with (
        answering(lambda write: write(event("a")) and None) as url,
        pytest.raises(ConfigError, match=r"1 tokens came of 48 that were asked for"),
    ):
        drive(url, arrivals, 20.0)
    with pytest.raises(ConfigError, match=r"a request of the phases benchmark failed: .*refused"):
        drive(url, arrivals, 20.0)
