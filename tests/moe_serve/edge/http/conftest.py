"""The HTTP server over an engine that answers with the prompt's own text."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from moe_serve.control.requests.client import ServedModel
from moe_serve.edge.app import create_app
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.server import run_server
from moe_serve.errors import OverloadedError
from moe_serve.messages import MembershipNews, RankStats
from moe_serve.types import ErrorKind, FinishReason, Request, TokenEvent

CONTEXT = 512
START, END = 1, 2
# How byte-level tokenizers of 3 special tokens and an untrained alphabet number "\n".
LINE_BREAK = 201


class EchoEngine:
    """Answers with the prompt (of a chat: its last message), then ends the sequence.

    It behaves as an engine does at the protocol: one event per token, the ends of
    SamplingParams, aborts, a full queue, and lost sequences.
    """

    def __init__(self) -> None:
        self.is_ready = True
        self.max_live = 200
        self.seconds_per_token = 0.0
        self.fail_after: int | None = None
        self.fail_kind: ErrorKind = "engine"
        self.seen: list[Request] = []
        self.live: set[str] = set()
        self.aborted: list[str] = []
        self.num_events = 0

    @property
    def membership(self) -> MembershipNews:
        return MembershipNews(2, (1, 3))

    @property
    def expert_imbalance(self) -> float:
        return 1.25

    def stats(self) -> Sequence[RankStats]:
        return [
            RankStats(
                plan_rank=rank,
                num_running=len(self.live),
                num_pages=8,
                num_pages_used=2,
                num_generated_tokens=self.num_events,
                num_cached_tokens=64,
                dispatch_bytes=4096 * (rank + 1),
                link_bytes={"gpu>host": 512 * rank},
                step_seconds={"attention": 0.5, "experts": 1.5},
            )
            for rank in range(2)
        ]

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.live.discard(request_id)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        if len(self.live) + len(requests) > self.max_live:
            raise OverloadedError("the queue is full; try again later")
        self.seen.extend(requests)
        self.live.update(request.request_id for request in requests)
        plans = {request.request_id: self._plan(request) for request in requests}
        try:
            while plans:
                for request_id, plan in list(plans.items()):
                    await asyncio.sleep(self.seconds_per_token)
                    event = next(plan)
                    if request_id not in self.live:
                        event = TokenEvent(request_id, event.index, None, finish_reason="abort")
                    self.num_events += 1
                    if event.finish_reason is not None:
                        del plans[request_id]
                        self.live.discard(request_id)
                    yield event
        finally:
            self.live.difference_update(plans)
            self.aborted.extend(plans)

    def _plan(self, request: Request) -> Iterator[TokenEvent]:
        sampling = request.sampling
        ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else request.end_token_ids)}
        answer = [*answer_ids(request.prompt_ids), END]
        for index in range(sampling.max_tokens):
            token = answer[index % len(answer)]
            reason: FinishReason | None = "stop" if token in ends else None
            if reason is None and index + 1 == sampling.max_tokens:
                reason = "length"
            if index == self.fail_after:
                yield TokenEvent(
                    request.request_id,
                    index,
                    None,
                    finish_reason="error",
                    error="rank 1 is gone",
                    error_kind=self.fail_kind,
                )
            num_top = sampling.logprobs
            top = tuple((token + place, -1.0 - place) for place in range(num_top or 0))
            yield TokenEvent(
                request.request_id,
                index,
                token,
                logprob=None if num_top is None else -1.0,
                top_logprobs=top,
                finish_reason=reason,
                num_cached_tokens=3 if index == 0 else 0,
            )


def answer_ids(prompt: Sequence[int]) -> list[int]:
    """The last whole message without its role, or all of a prompt that is no chat."""
    ids = list(prompt)
    if END not in ids:
        return ids
    stop = len(ids) - 1 - ids[::-1].index(END)
    start = stop - ids[:stop][::-1].index(START)
    return ids[ids.index(LINE_BREAK, start) + 1 : stop]


class Server:
    """A live HTTP server in a thread of its own."""

    def __init__(
        self, engine: EchoEngine, client: httpx.Client, stop: Callable[[], object]
    ) -> None:
        self.engine = engine
        self.client = client
        self.stop = stop
        self.url = str(client.base_url)


Serve = Callable[..., Server]


@contextmanager
def serving(
    engine: EchoEngine, models: Sequence[ServedModel], **options: object
) -> Iterator[Server]:
    options = {"api_keys": frozenset[str](), **options}
    app = create_app(engine, models, metrics=Metrics(engine), **options)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        loop.run_until_complete(run_server(app, listener, stop, grace_seconds=5))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            yield Server(engine, client, lambda: loop.call_soon_threadsafe(stop.set))
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def module_server(plain_path: Path, thinking_path: Path, opened_path: Path) -> Iterator[Server]:
    paths = {"plain": plain_path, "thinking": thinking_path, "opened": opened_path}
    models = [served(name, path) for name, path in paths.items()]
    with serving(EchoEngine(), models) as server:
        yield server


@pytest.fixture
def server(module_server: Server) -> Server:
    """One server per test file, its engine as new."""
    module_server.engine.__init__()  # type: ignore[misc]
    return module_server


@pytest.fixture
def serve(plain_path: Path) -> Callable[..., object]:
    """serve(**options of create_app) as a context: a server of the plain model alone."""
    return lambda **options: serving(EchoEngine(), [served("plain", plain_path)], **options)


@pytest.fixture
def small_model(plain_path: Path) -> Callable[..., object]:
    """small_model(vocab_size=n) as a context: a model with fewer tokens than its tokenizer."""
    model = served("plain", plain_path)
    return lambda vocab_size: serving(EchoEngine(), [replace(model, vocab_size=vocab_size)])


def served(name: str, path: Path) -> ServedModel:
    return ServedModel(name, str(path), CONTEXT, 448, (END,))


@pytest.fixture(scope="module")
def encoder_server(
    tmp_path_factory: pytest.TempPathFactory, plain_path: Path
) -> Iterator[tuple[Server, dict[str, Path]]]:
    """Models `embedder`, `typed` (a reranker) and `plain`, which generates; their directories."""
    from encoder_checkpoints import make_encoder_checkpoint
    from encoder_client import EncoderClient
    from encoder_runs import load

    head = "ForSequenceClassification"
    paths = {
        "embedder": make_encoder_checkpoint(tmp_path_factory.mktemp("embedder")),
        "reranker": make_encoder_checkpoint(tmp_path_factory.mktemp("reranker"), "Bert", head),
    }
    engines, models = zip(*(load(path, max_live=140) for path in paths.values()), strict=True)
    named = [replace(model, name=name) for name, model in zip(paths, models, strict=True)]
    client = EncoderClient(engines)
    with serving(client, [*named, served("plain", plain_path)]) as server:
        yield server, paths
