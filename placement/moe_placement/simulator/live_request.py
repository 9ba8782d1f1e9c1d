"""A request on its way through a simulated deployment."""

from dataclasses import dataclass, replace

from moe_placement.simulator.deployment import KvTransfer
from moe_placement.simulator.router import Target
from moe_placement.simulator.scheduler import SimulatedRequest


@dataclass(slots=True)
class LiveRequest:
    """Attributes:
    part: what the rank that holds it was asked for.
    num_tokens: that it had before that part.
    is_taken: some rank has had it.
    has_cache: the keys and values of all its tokens but the last are at hand.
    began_at: seconds; when the part's prefill began.
    target: the rank that holds it; None on its way.
    """

    request: SimulatedRequest
    part: SimulatedRequest
    num_tokens: int = 0
    is_taken: bool = False
    has_cache: bool = False
    began_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float = 0.0
    target: Target | None = None

    @property
    def num_left(self) -> int:
        return self.request.output_tokens - self.num_tokens

    def leave(self, num_tokens: int) -> None:
        """Its rank holds it no longer, and gave it so many tokens."""
        assert self.target is not None
        self.target.num_live -= 1
        self.target = None
        self.num_tokens += num_tokens

    def next_part(self, num_output: int) -> SimulatedRequest:
        """So many tokens of what is left, behind those that it has."""
        request = self.request
        if num_output == request.output_tokens:
            return request
        # The block that the prompt does not fill is another one with tokens behind it.
        num_blocks = request.prompt_tokens // request.block_tokens if self.num_tokens else None
        return replace(
            request,
            prompt_tokens=request.prompt_tokens + self.num_tokens,
            output_tokens=num_output,
            blocks=request.blocks[:num_blocks],
        )

    def answers_here(self, transfer: KvTransfer | None) -> bool:
        """Whether the client has the part's first token at once, not behind a transfer."""
        delays = transfer is not None and transfer.delays_first_token
        return not delays or self.part.output_tokens == self.num_left
