"""One live `mpirun -n 2` server for the whole folder, its clients, and what transformers says."""

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from checkpoints import CHAT_TEMPLATE
from families import VOCAB_SIZE
from live_server import LiveServer, live_server, server_config
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI
from oracle import Adjust, continue_greedily, load_oracle, unadjusted
from prometheus_client.parser import text_string_to_metric_families
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

MODEL = "tiny"
TAGS = ("<think>", "</think>")
# Far more than the logits of the checkpoints here differ.
BIAS_STEP = 12


class Oracle:
    """The served checkpoint in transformers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = load_oracle(path)
        self._known: dict[Any, tuple[list[int], torch.Tensor]] = {}
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        vocabulary = self.tokenizer.get_vocab().items()
        self.bytes_of = {
            token_id: bytes(byte_of[character] for character in name)
            for name, token_id in vocabulary
            if all(character in byte_of for character in name)
        }

    def continue_greedily(
        self, prompt: Sequence[int] | str, num_new_tokens: int, adjust: Adjust = unadjusted
    ) -> tuple[list[int], torch.Tensor]:
        """`oracle.continue_greedily`, remembered where nothing is adjusted."""
        key = (tuple(self.ids(prompt)), num_new_tokens, adjust)
        if adjust is not unadjusted:
            return continue_greedily(self.model, *key)
        if key not in self._known:
            self._known[key] = continue_greedily(self.model, *key)
        return self._known[key]

    def ids(self, prompt: Sequence[int] | str) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def byte_tokens(self, text: str) -> list[int]:
        """One token for each byte of the text."""
        token_of = {token: token_id for token_id, token in self.bytes_of.items()}
        return [token_of[bytes([byte])] for byte in text.encode()]


@pytest.fixture(scope="session")
def served_path(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("deepseek_v3")


@pytest.fixture(scope="session")
def oracle(served_path: Path) -> Oracle:
    return Oracle(served_path)


@pytest.fixture(scope="session")
def server(served_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = server_config(served_path, 2)
    with live_server(tmp_path_factory.mktemp("server"), 2, config) as running:
        yield running


@pytest.fixture(scope="session")
def connect() -> Callable[..., OpenAI]:
    """connect(server, api_key) -> a client that neither retries nor uses a proxy."""

    def connect(server: LiveServer, api_key: str = "none") -> OpenAI:
        http_client = DefaultHttpxClient(trust_env=False, timeout=60)
        base_url = f"{server.url}/v1"
        return OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http_client)

    return connect


@pytest.fixture(scope="session")
def client(server: LiveServer, connect: Callable[..., OpenAI]) -> Iterator[OpenAI]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="session")
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def complete(client: OpenAI) -> Callable[..., Any]:
    """`completions.create`, greedy unless told otherwise."""
    return partial(client.completions.create, model=MODEL, temperature=0)


@pytest.fixture(scope="session")
def chat(client: OpenAI) -> Callable[..., Any]:
    """chat(text, **fields): `chat.completions.create` of one message, greedy by default."""
    create = partial(client.chat.completions.create, model=MODEL, temperature=0)
    return lambda text, **fields: create(messages=[{"role": "user", "content": text}], **fields)


@pytest.fixture(scope="session")
def complete_at_once(server: LiveServer) -> Callable[[Sequence[dict[str, Any]]], list[Any]]:
    """Completions of all bodies, sent at the same time."""

    async def run(bodies: Sequence[dict[str, Any]]) -> list[Any]:
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(trust_env=False, timeout=60),
        ) as client:
            create = partial(client.completions.create, model=MODEL)
            return await asyncio.gather(*(create(**body) for body in bodies))

    return lambda bodies: asyncio.run(run(bodies))


@pytest.fixture(scope="session")
def metric(http: httpx.Client) -> Callable[[str], float]:
    """metric(name): its samples of that very name, summed over their labels."""

    def read(name: str) -> float:
        families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        found = [sample.value for sample in samples if sample.name == name]
        assert found, f"/metrics has no {name}"
        return sum(found)

    return read


@pytest.fixture(scope="session")
def spell() -> Callable[[Sequence[int]], dict[str, Any]]:
    """Fields that make a greedy answer these tokens, up to 7, distinct and not of the prompt.

    Each token's bias is far over the next one's, and the repetition penalty takes it away once
    the token has been said.
    """

    def fields(tokens: Sequence[int]) -> dict[str, Any]:
        assert len(set(tokens)) == len(tokens) <= 7, "these cannot be spelled"
        biases = {str(token): 100 - BIAS_STEP * place for place, token in enumerate(tokens)}
        return {
            "max_tokens": len(tokens),
            "logit_bias": biases,
            "extra_body": {"repetition_penalty": 100},
        }

    return fields


@pytest.fixture(scope="session")
def thinking_path(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint with thinking tags as tokens; its template can open the thinking itself."""
    path = tmp_path_factory.mktemp("thinking") / "checkpoint"
    shutil.copytree(checkpoint("deepseek_v3", vocab_size=VOCAB_SIZE + len(TAGS)), path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    assert tokenizer.add_tokens(list(TAGS)) == len(TAGS)
    opening = "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}"
    tokenizer.chat_template = CHAT_TEMPLATE + opening
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def thinking_tokens(thinking_path: Path) -> Callable[[str], list[int]]:
    """Tokens of a text: its tags, and between them one for each byte."""
    oracle = Oracle(thinking_path)

    def tokens(text: str) -> list[int]:
        parts = re.split(f"({'|'.join(TAGS)})", text)
        return [
            token
            for part in parts
            for token in (oracle.ids(part) if part in TAGS else oracle.byte_tokens(part))
        ]

    return tokens


@pytest.fixture(scope="session")
def thinking_server(
    thinking_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """One rank, open to all addresses and without keys."""
    config = server_config(thinking_path, 1, server={"host": "0.0.0.0", "port": 0})
    with live_server(tmp_path_factory.mktemp("thinking-server"), 1, config) as running:
        yield running
