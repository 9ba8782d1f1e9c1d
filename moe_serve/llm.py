"""The engine without a server: `LLM(config).generate(prompts, sampling)`.

Under mpirun every rank makes the same calls and gets the same answers.
"""

import dataclasses
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from moe_comm.header import StepHeader, agree
from moe_placement.load.trace import ExpertLoad

from moe_serve.bring_up import Meeting, meet
from moe_serve.build import build_rank
from moe_serve.config.load import load_config
from moe_serve.config.tree import Config
from moe_serve.config.unserved import require_served
from moe_serve.config.validate import validate
from moe_serve.control.meeting.world import check_world_size, launched_world
from moe_serve.edge.tokenizer import ModelTokenizer
from moe_serve.errors import OverloadedError, RequestError, UnsupportedError
from moe_serve.messages import RankStats
from moe_serve.types import FinishReason, Request, SamplingParams, TokenEvent

Prompt = str | Sequence[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """One prompt's answer.

    Attributes:
        text: without special tokens; empty where the checkpoint has no tokenizer.
        logprobs: of the chosen tokens, where asked for.
        top_logprobs: (token id, logprob) best first, for each token, where asked for.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


class LLM:
    """A model on this process's rank, or on all ranks of an mpirun.

    Args:
        config: a config file or tree, as the server's; `server` is not used.
        overrides: `section.key=value`.
        meeting: of ranks that have met already, for one engine after the other; its owner closes
            it. By default the ranks meet here, once in a process.

    Raises:
        MoeServeError: what keeps the ranks from forming an engine.
    """

    def __init__(
        self,
        config: Config | str | Path,
        overrides: Sequence[str] = (),
        meeting: Meeting | None = None,
    ) -> None:
        tree = config if isinstance(config, Config) else load_config(config, overrides)
        validate(tree)
        require_served(tree)
        if len(tree.models) > 1:
            raise UnsupportedError(
                f"models: LLM runs one model, got {len(tree.models)}; keep one entry, or start a "
                "server for all of them"
            )
        launch = launched_world()
        check_world_size(tree, launch)
        self._owns_meeting = meeting is None
        self._meeting = meeting or meet(tree, launch)
        rank = build_rank(tree, self._meeting)
        self.config = rank.config
        self._rank = rank
        self._tokenizer: ModelTokenizer | None = None
        if (Path(rank.served.path) / "tokenizer.json").is_file():
            self._tokenizer = ModelTokenizer(Path(rank.served.path))

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """One completion for each prompt, in their order.

        Args:
            prompts: texts or token ids.
            sampling: for all, or one for each prompt; greedy with 16 tokens by default. Stop
                strings are the server's: use stop_token_ids here.

        Raises:
            RequestError: a prompt that cannot be served.
        """
        requests = self._requests(prompts, sampling or SamplingParams(temperature=0.0))
        exchange = self._meeting.exchange
        mine = self._own(requests)
        error = ""
        try:
            for request in mine:
                self._rank.engine.check(request)
        except RequestError as refusal:
            error = str(refusal)
        errors = [text.decode() for text in exchange.allgather_bytes(error.encode())]
        if any(errors):
            raise RequestError(next(text for text in errors if text))
        events = self._run(mine)
        gathered = exchange.allgather_bytes(msgspec.msgpack.encode(events))
        everything: dict[str, list[TokenEvent]] = {}
        for part in gathered:
            everything |= msgspec.msgpack.decode(part, type=dict[str, list[TokenEvent]])
        return [self._completion(each, everything[each.request_id]) for each in requests]

    @property
    def vocab_size(self) -> int:
        return self._rank.served.vocab_size

    def gather(self, data: bytes) -> list[bytes]:
        """-> the data of each rank, in rank order; called by all ranks."""
        return self._meeting.exchange.allgather_bytes(data)

    def stats(self) -> RankStats:
        """This rank's counters since it started."""
        return self._rank.engine.stats()

    def note_expert_seconds(self) -> list[float]:
        """-> a list that grows by the seconds of each pass through a layer's experts here."""
        return self._rank.loaded.dispatcher.note_expert_seconds()

    def expert_load(self) -> ExpertLoad:
        """Of all ranks since they started, in one window; all call it together.

        Raises:
            LoadError: a layer has no tokens yet, or the model has no experts.
        """
        plan, exchange = self._rank.deployment.plan, self._meeting.exchange
        shape = (len(plan.layers), plan.num_experts)
        counts = exchange.allgather_bytes(self._rank.loaded.load.totals)
        return ExpertLoad(
            model=plan.model,
            layers=tuple(sorted(plan.layers)),
            counts_TLE=np.sum(
                [np.frombuffer(each, "<i8").reshape(1, *shape) for each in counts], axis=0
            ),
            steps_per_window=max(1, self.stats().num_steps),
        )

    def close(self) -> None:
        """Leave the world, unless others lent it; all ranks do so together."""
        if self._owns_meeting:
            self._meeting.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()

    def _requests(
        self, prompts: Sequence[Prompt], sampling: SamplingParams | Sequence[SamplingParams]
    ) -> list[Request]:
        if isinstance(sampling, SamplingParams):
            sampling = [sampling] * len(prompts)
        return [
            Request(
                request_id=str(number),
                prompt_ids=self._ids(prompt),
                sampling=params
                if params.seed is not None
                else dataclasses.replace(params, seed=secrets.randbits(63)),
                end_token_ids=self._rank.served.end_token_ids,
            )
            for number, (prompt, params) in enumerate(zip(prompts, sampling, strict=True))
        ]

    def _ids(self, prompt: Prompt) -> tuple[int, ...]:
        if not isinstance(prompt, str):
            return tuple(prompt)
        if self._tokenizer is None:
            raise RequestError("the checkpoint has no tokenizer.json; give token ids")
        return self._tokenizer.encode_now(prompt, add_special_tokens=True)

    def _own(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Those that this rank generates: ranks that take requests take turns."""
        homes, rank = self._rank.homes, self._meeting.launch.rank
        return requests[homes.index(rank) :: len(homes)] if rank in homes else ()

    def _run(self, requests: Sequence[Request]) -> dict[str, list[TokenEvent]]:
        events: dict[str, list[TokenEvent]] = {request.request_id: [] for request in requests}
        engine, epoch = self._rank.engine, self._rank.deployment.plan.epoch
        waiting = deque(requests)
        while True:
            self._feed(waiting)
            header = StepHeader(work=engine.has_work, wake=0, plan_epoch=epoch)
            if not agree(self._rank.exchange, header).work:
                return events
            for event in engine.step():
                events[event.request_id].append(event)

    def _feed(self, waiting: deque[Request]) -> None:
        """Give the engine as many as it takes now; it checks each a second time, which is cheap."""
        while waiting:
            try:
                self._rank.engine.add(waiting[0])
            except OverloadedError:
                return
            waiting.popleft()

    def _completion(self, request: Request, events: Sequence[TokenEvent]) -> Completion:
        token_ids = tuple(event.token_id for event in events if event.token_id is not None)
        reason = events[-1].finish_reason
        assert reason is not None
        return Completion(
            prompt_ids=request.prompt_ids,
            token_ids=token_ids,
            text=self._text(token_ids),
            finish_reason=reason,
            logprobs=tuple(event.logprob for event in events if event.logprob is not None),
            top_logprobs=tuple(event.top_logprobs for event in events if event.top_logprobs),
        )

    def _text(self, token_ids: Sequence[int]) -> str:
        if self._tokenizer is None:
            return ""
        detokenizer = self._tokenizer.detokenizer()
        return "".join([*map(detokenizer.add, token_ids), detokenizer.finish()])
