"""The order of work in a mixture-of-experts layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from moe_comm.dispatcher import ExpertRows
from moe_comm.transport.local import LocalExchange

from moe_serve.layers.moe import MoeLayer


@dataclass
class Diary:
    """Plays gate, dispatcher, experts and shared experts, and writes down who was called."""

    calls: list[str] = field(default_factory=list)

    def note(self, call: str, result: Any) -> Any:
        self.calls.append(call)
        return result

    def gate(self, x_TD: torch.Tensor) -> Any:
        return self.note("gate", (torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)))

    def experts(self, rows_RD: torch.Tensor, counts_E: torch.Tensor) -> Any:
        return self.note("experts", rows_RD * 10)

    def start(self, layer: int, x_TD: torch.Tensor, *rest: torch.Tensor) -> Any:
        return self.note(f"start {layer}", _Pending(self, x_TD))

    def start_combine(self, y_RD: torch.Tensor, handle: str) -> Any:
        return self.note(f"start combine {handle}", _Pending(self, y_RD, combine=True))


@dataclass
class Shared:
    diary: Diary

    def part(self, x_TD: torch.Tensor, context: Any, between: Callable[[], None]) -> Any:
        between()
        return self.diary.note("shared", x_TD * 100)


@dataclass
class _Pending:
    diary: Diary
    rows: torch.Tensor
    combine: bool = False

    def poll(self) -> None:
        self.diary.note("poll", None)

    def finish(self) -> Any:
        if self.combine:
            return self.diary.note("finish combine", self.rows)
        received = ExpertRows(self.rows, torch.tensor([2]))
        return self.diary.note("finish", (received, "handle"))


@dataclass
class Context:
    dispatcher: Diary
    keys_T: torch.Tensor
    own_tokens: slice
    attention: LocalExchange


def test_shared_experts_are_computed_while_tokens_travel() -> None:
    diary: Any = Diary()
    context: Any = Context(diary, torch.zeros(2), slice(0, 2), LocalExchange())
    layer = MoeLayer(5, diary.gate, diary.experts, Shared(diary))
    y_TD = layer(torch.ones(2, 3), context)
    assert diary.calls == [
        "gate",
        "start 5",
        "poll",
        "shared",
        "finish",
        "experts",
        "start combine handle",
        "finish combine",
    ]
    assert torch.equal(y_TD, torch.full((2, 3), 110.0))
