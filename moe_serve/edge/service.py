"""What every route needs: the engine, the served models, the metrics."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import time
from uuid import uuid4

from moe_serve.control.requests.client import EngineClient
from moe_serve.edge.bodies import GenerationBody
from moe_serve.edge.choice import Choice
from moe_serve.edge.errors import NotReadyError
from moe_serve.edge.generation import Generation, LiveSequence
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.sampling import PromptLimits, choice_seed, resolve_max_tokens, sampling_params
from moe_serve.edge.stop import StopMatcher
from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.errors import RequestError, UnknownModelError
from moe_serve.types import Request, SamplingParams, ServedModel, Task

_MAX_SEQUENCES = 4096
WORK: Mapping[Task, str] = {
    "generate": "generates text (/v1/chat/completions, /v1/completions)",
    "embed": "embeds texts (/v1/embeddings)",
    "rerank": "reranks documents (/v1/rerank)",
}


@dataclass(frozen=True, slots=True)
class Tenant:
    """One served model with its tokenizer; `index` is the engine's name for it."""

    index: int
    model: ServedModel
    tokenizer: ModelTokenizer
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt; `text` is the filled chat template, None for a plain completion."""

    ids: tuple[int, ...]
    text: str | None = None


def load_tenant(index: int, model: ServedModel) -> Tenant:
    """With its tokenizer; CheckpointError where that cannot be read."""
    release = version("moe-serve")
    return Tenant(
        index,
        model,
        ModelTokenizer(Path(model.path)),
        "fp_" + sha256(f"{release} {model}".encode()).hexdigest()[:12],
    )


@dataclass(frozen=True, slots=True)
class Service:
    """Attributes:
    tenants: may come and go.
    visits: by tenant, requests that may still send the engine something.
    """

    client: EngineClient
    tenants: list[Tenant]
    metrics: Metrics
    max_body_bytes: int
    created: int
    visits: Counter[int] = field(default_factory=Counter)

    @classmethod
    def open(
        cls,
        client: EngineClient,
        models: Sequence[ServedModel],
        metrics: Metrics,
        max_body_bytes: int,
    ) -> "Service":
        tenants = [load_tenant(index, model) for index, model in enumerate(models)]
        return cls(client, tenants, metrics, max_body_bytes, int(time()))

    async def add(self, number: int, served: ServedModel) -> None:
        """Serve one model more; CheckpointError where it has no tokenizer that can be read."""
        self.tenants.append(await asyncio.to_thread(load_tenant, number, served))

    def change(self, number: int, served: ServedModel) -> None:
        """What requests may ask of a model has changed; nothing, where it was removed."""
        self.tenants[:] = [
            replace(tenant, model=served) if tenant.index == number else tenant
            for tenant in self.tenants
        ]

    def remove(self, number: int) -> None:
        """Take no more requests for a model."""
        self.tenants[:] = [tenant for tenant in self.tenants if tenant.index != number]

    def is_visited(self, number: int) -> bool:
        return self.visits[number] > 0

    def check_ready(self) -> None:
        """Raise NotReadyError unless new requests can be taken."""
        if not self.client.is_ready:
            refusal = self.client.membership.refusal
            raise NotReadyError(
                refusal or "the server is starting or about to stop; try again or elsewhere"
            )

    def tenant(self, name: str | None) -> Tenant:
        """The model that a request names; it may name none where only one is served."""
        if name is None and len(self.tenants) == 1:
            return self.tenants[0]
        for tenant in self.tenants:
            if tenant.model.name == name:
                return tenant
        served = ", ".join(tenant.model.name for tenant in self.tenants)
        if name is None:
            raise RequestError(f"name a model; this server has {served}", "model")
        raise UnknownModelError(f"no model {name!r}; this server has {served}", "model")

    def tenant_for(self, task: Task, name: str | None) -> Tenant:
        """`tenant`, for a route that needs a model which does `task`."""
        tenant = self.tenant(name)
        if tenant.model.task != task:
            raise RequestError(
                f"{tenant.model.name} {WORK[tenant.model.task]}; this needs a model that "
                f"{WORK[task]}",
                "model",
            )
        return tenant

    @contextmanager
    def visit(self, task: Task, name: str | None) -> Iterator[Tenant]:
        """`tenant_for`; a model that is unloaded meanwhile waits for the end of the visit, within
        the time that its requests have."""
        tenant = self.tenant_for(task, name)
        self.visits[tenant.index] += 1
        try:
            yield tenant
        finally:
            self.visits[tenant.index] -= 1

    def generation(
        self, tenant: Tenant, body: GenerationBody, prompts: Sequence[Prompt], limits: PromptLimits
    ) -> Generation:
        """All sequences that the body asks for, checked, not yet started.

        Raises:
            RequestError: a prompt is too long, or a token id is not the model's.
        """
        num_choices = body.n or 1
        _check_number(len(prompts), num_choices)
        groups = []
        for place, prompt in enumerate(prompts):
            most = resolve_max_tokens(body.asked_max_tokens, len(prompt.ids), tenant.model, limits)
            sampling = sampling_params(body, tenant.model, most)
            indices = range(place * num_choices, (place + 1) * num_choices)
            groups.append([self._live(tenant, body, prompt, sampling, index) for index in indices])
        return Generation(self.client, groups)

    def _live(
        self,
        tenant: Tenant,
        body: GenerationBody,
        prompt: Prompt,
        sampling: SamplingParams,
        index: int,
    ) -> LiveSequence:
        splitter = None
        if prompt.text is not None:
            splitter = tenant.tokenizer.reasoning_splitter(prompt.text)
        stops = StopMatcher(body.stop_strings)
        request = Request(
            request_id=f"{uuid4().hex}-{index}",
            prompt_ids=prompt.ids,
            sampling=replace(sampling, seed=choice_seed(body.seed, index % (body.n or 1))),
            tenant=tenant.index,
            end_token_ids=tenant.model.end_token_ids,
        )
        choice = Choice(index, tenant.tokenizer.detokenizer(), stops, splitter)
        return LiveSequence(request, choice, self.metrics.timer(tenant.model.name))


def _check_number(num_prompts: int, num_choices: int) -> None:
    number = num_prompts * num_choices
    if number > _MAX_SEQUENCES:
        raise RequestError(
            f"{num_prompts} prompts with n {num_choices} are {number} sequences, "
            f"the limit is {_MAX_SEQUENCES}; send them in parts",
            "prompt",
        )
