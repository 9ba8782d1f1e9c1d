"""Small tokenizers, and the HTTP server over an engine that answers with the prompt's own text."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from moe_serve.control.client import ServedModel
from moe_serve.edge.app import create_app
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.server import run_server
from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.errors import OverloadedError
from moe_serve.types import FinishReason, RankStats, Request, TokenEvent

TEXT = [
    "The router scores every expert; only the best are asked, so most of the weights rest.",
    "Seventeen small ships sailed past the harbour before dawn, carrying salt and wool.",
    "user assistant system hello hello world think answer stop END",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
    "{% if messages[0].content == 'refuse me' %}{{ raise_exception('no such talk') }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENED = TEMPLATE + "{% if add_generation_prompt and not closed %}<think>\n{% endif %}"
CONTEXT = 512
END = 2


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, template: str | None, path: Path) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(str(path))
    return path


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level, knows no thinking tag."""
    return save(byte_level_tokenizer(), TEMPLATE, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def thinking_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tags are tokens; the model itself opens them."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    return save(tokenizer, TEMPLATE, tmp_path_factory.mktemp("thinking"))


@pytest.fixture(scope="session")
def opened_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template opens the tag, unless told `closed`."""
    return save(byte_level_tokenizer(), OPENED, tmp_path_factory.mktemp("opened"))


@pytest.fixture(scope="session")
def untemplated_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the manner of Llama 2 and Mixtral: words with U+2581, bytes as `<0x..>`; no template."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", *SPECIAL[1:]], show_progress=False
    )
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in TEXT], trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    path = tmp_path_factory.mktemp("untemplated")
    return save(Tokenizer.from_str(json.dumps(state)), None, path)


@pytest.fixture(scope="session")
def word_piece_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the manner of BERT: a decoder that no byte table can stand for."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", *SPECIAL], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return save(tokenizer, None, tmp_path_factory.mktemp("word_piece"))


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
        self.seen: list[Request] = []
        self.live: set[str] = set()
        self.aborted: list[str] = []
        self.num_events = 0

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
                    request.request_id, index, None, finish_reason="error", error="rank 1 is gone"
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
    start = stop - ids[:stop][::-1].index(1)
    line_break = byte_level_tokenizer().encode("\n").ids[0]
    return ids[ids.index(line_break, start) + 1 : stop]


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


def served(name: str, path: Path) -> ServedModel:
    return ServedModel(name, str(path), CONTEXT, 448, (END,))


@pytest.fixture(scope="session")
def plain_tokenizer(plain_path: Path) -> ModelTokenizer:
    return ModelTokenizer(plain_path)


@pytest.fixture(scope="session")
def word_piece_tokenizer(word_piece_path: Path) -> ModelTokenizer:
    return ModelTokenizer(word_piece_path)


@pytest.fixture(scope="session")
def untemplated_tokenizer(untemplated_path: Path) -> ModelTokenizer:
    return ModelTokenizer(untemplated_path)
