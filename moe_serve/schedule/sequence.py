"""One request while it lives: its tokens, how far they are computed, and the pages they lie in."""

from collections.abc import Iterator
from enum import Enum

from moe_serve.schedule.prefix_tree import Block, Node
from moe_serve.types import FinishReason, Request, SampledToken, TokenEvent


class Phase(Enum):
    """A sequence holds pages from RUNNING on.

    ARRIVING: another rank computes them. HANDED_OVER: they are computed, for another rank.
    """

    WAITING = "waiting"
    RUNNING = "running"
    ARRIVING = "arriving"
    HANDED_OVER = "handed over"
    ENDED = "ended"


def pages_of(num_tokens: int, page_size: int) -> int:
    """Pages of a sequence that ends with so many tokens, of which the last is never computed."""
    return -(-(num_tokens - 1) // page_size)


class Sequence:
    """A request's state in the scheduler, which alone changes it.

    Attributes:
        token_ids: the prompt and all that was generated; the last one is not computed yet.
        num_computed: leading tokens whose keys and values lie in the pages.
        page_ids: in the order of the tokens; rebuilt when a page comes, not at each step.
        node: of the last page that is in the prefix tree; None while not running.
        num_committed: leading pages that are in the prefix tree.
        num_cached: prompt tokens found in the prefix tree when first admitted.
        num_wanted: available pages that its last try at admission asked for.
        comes_from_afar: another rank is to compute its prompt; no longer once it was preempted.
        was_offered: that rank has begun to.
        last_turn: number of its last turn among those that decoded in turns.
    """

    __slots__ = (
        "_max_length",
        "_stop_ids",
        "comes_from_afar",
        "forerunner",
        "last_turn",
        "node",
        "num_cached",
        "num_committed",
        "num_computed",
        "num_expected",
        "num_prompt",
        "num_wanted",
        "page_ids",
        "phase",
        "request",
        "request_id",
        "token_ids",
        "was_admitted",
        "was_offered",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.request_id = request.request_id
        self.token_ids = [*request.prompt_ids, *request.generated_ids]
        self.num_prompt = len(request.prompt_ids)
        self.num_cached = 0
        self.was_admitted = False
        self.last_turn = 0
        end_ids = () if request.sampling.ignore_eos else request.end_token_ids
        self._stop_ids = frozenset((*end_ids, *request.sampling.stop_token_ids))
        self._max_length = self.num_prompt + request.sampling.max_tokens
        self.reset(Phase.WAITING)
        self.comes_from_afar = request.prefill_rank is not None

    def reset(self, phase: Phase) -> None:
        """Forget all that was computed; the tokens stay."""
        self.phase = phase
        self.num_computed = 0
        self.page_ids: tuple[int, ...] = ()
        self.node: Node | None = None
        self.num_committed = 0
        self.num_wanted = 0
        self.forerunner: Sequence | None = None
        self.num_expected = 0
        self.comes_from_afar = False
        self.was_offered = False

    @property
    def samples(self) -> bool:
        """Whether its last token's logits choose a next one here."""
        return self.request.decode_rank is None

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    def max_pages(self, page_size: int) -> int:
        """Pages that it needs if it gets as long as it may."""
        return pages_of(self._max_length, page_size)

    def append(self, token_id: int) -> FinishReason | None:
        """Take a generated token and return why it is the last one; None where it is not."""
        self.token_ids.append(token_id)
        if token_id in self._stop_ids:
            return "stop"
        return "length" if len(self.token_ids) >= self._max_length else None

    def block(self, index: int, page_size: int) -> Block:
        """The tokens of page `index`; fewer than page_size where the page is not full."""
        return tuple(self.token_ids[index * page_size : (index + 1) * page_size])

    def blocks(self, num_blocks: int, page_size: int) -> Iterator[Block]:
        return (self.block(index, page_size) for index in range(num_blocks))

    def wait_for(self, forerunner: "Sequence", num_tokens: int) -> None:
        """Stay in the queue while `forerunner` computes `num_tokens` that both begin with."""
        self.forerunner, self.num_expected = forerunner, num_tokens

    @property
    def awaits_offer(self) -> bool:
        return self.comes_from_afar and not self.was_offered

    @property
    def awaits_forerunner(self) -> bool:
        ahead = self.forerunner
        return (
            ahead is not None
            and ahead.phase in (Phase.RUNNING, Phase.ARRIVING)
            and ahead.num_computed < self.num_expected
        )

    def token_event(self, token: SampledToken, finish_reason: FinishReason | None) -> TokenEvent:
        """News of the newest token; that of the first tells what was cached."""
        index = self.num_generated - 1
        return TokenEvent(
            self.request_id,
            index,
            token.token_id,
            token.logprob,
            token.top_logprobs,
            finish_reason,
            0 if index else self.num_cached,
        )

    def abort_event(self) -> TokenEvent:
        """News of the end, without a token."""
        index = self.num_generated
        num_cached = 0 if index else self.num_cached
        return TokenEvent(
            self.request_id, index, None, finish_reason="abort", num_cached_tokens=num_cached
        )
