"""What the engine's thread knows of a request that it offered: enough to check what it sends."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outgoing:
    """Attributes:
    first_token: accepted; None before that.
    """

    num_tokens: int
    peers: tuple[str, ...]
    first_token: int | None = None
    _due: dict[int, int] = field(default_factory=dict)

    def check(self, layer: int, first_token: int, num_tokens: int) -> None:
        """
        Raises:
            ValueError: not accepted yet, or not the layer's next tokens.
        """
        if self.first_token is None:
            raise ValueError("not accepted yet")
        end_token = first_token + num_tokens
        due = self._due.get(layer, min(first_token, self.first_token))
        if first_token != due or not due < end_token <= self.num_tokens:
            raise ValueError(
                f"layer {layer}: tokens {first_token} to before {end_token} of {self.num_tokens}"
                f" cannot be sent when {due} is the next one"
            )

    def note(self, layer: int, end_token: int) -> None:
        self._due[layer] = end_token
