"""What a model is to a planner: exact parameter counts by part, and its cache's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_placement.model.architectures import find_architecture
from moe_placement.model.attention import AttentionSpec
from moe_placement.model.fields import ConfigFields
from moe_placement.model.mlp import MlpSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, counted in parameters.

    Attributes:
        embedding: the input embedding.
        head: the output head; 0 where it is the embedding's own weight.
        context_length: positions that it knows, prompt and answer together.
        attention: of one layer.
        mlp: dense and routed feed-forward layers; counts are of one layer.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    embedding: int
    head: int
    context_length: int
    attention: AttentionSpec
    mlp: MlpSpec

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelSpec":
        """Read a Hugging Face config.json; a key it leaves out has transformers' default.

        Raises:
            UnsupportedModelError: names the architecture and lists those supported.
            SpecError: names the key whose value cannot be right.
        """
        name, architecture = find_architecture(config)
        fields = ConfigFields(config, architecture.defaults, architecture.aliases)
        vocab_size, hidden_size = fields.size("vocab_size"), fields.size("hidden_size")
        embedding = vocab_size * hidden_size
        return cls(
            architecture=name,
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_layers=fields.size("num_hidden_layers"),
            embedding=embedding,
            head=0 if fields.flag("tie_word_embeddings") else embedding,
            context_length=fields.size("max_position_embeddings"),
            attention=architecture.attention(fields),
            mlp=architecture.mlp(fields),
        )

    @property
    def moe_layers(self) -> tuple[int, ...]:
        return self.mlp.moe_layers

    @property
    def num_experts(self) -> int:
        """Routed experts of one MoE layer; 0 for a dense model."""
        return self.mlp.num_experts

    @property
    def num_experts_per_token(self) -> int:
        return self.mlp.num_experts_per_token

    @property
    def num_dense_layers(self) -> int:
        return self.num_layers - len(self.moe_layers)

    @property
    def kv_elements(self) -> int:
        """Cache elements of one token in one layer."""
        return self.attention.kv_elements

    @property
    def rotary_elements(self) -> int:
        """A cosine and a sine of each number that turns, at every position."""
        return self.context_length * 2 * self.attention.rotary_width

    @property
    def norms(self) -> int:
        """All norms: two of each layer, those inside attention, and the last one."""
        return self.num_layers * (2 * self.hidden_size + self.attention.norms) + self.hidden_size

    @property
    def num_buffers(self) -> int:
        """Elements of all routers' correction biases, which are buffers and not parameters."""
        return len(self.moe_layers) * self.mlp.gate_bias

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters of the whole model by part; they sum to `total_parameters`."""
        num_moe = len(self.moe_layers)
        return {
            "embedding": self.embedding,
            "head": self.head,
            "attention": self.num_layers * self.attention.parameters,
            "dense_mlp": self.num_dense_layers * self.mlp.dense,
            "gate": num_moe * self.mlp.gate,
            "shared_experts": num_moe * self.mlp.shared_experts,
            "experts": num_moe * self.num_experts * self.mlp.expert,
            "norms": self.norms,
        }

    @property
    def total_parameters(self) -> int:
        return sum(self.parameters.values())

    @property
    def active_parameters(self) -> int:
        """Parameters that one token is computed with: its chosen experts alone, and not the
        input embedding, of which it reads one row (a tied one counts, as the head)."""
        idle_experts = self.num_experts - self.num_experts_per_token
        idle = len(self.moe_layers) * idle_experts * self.mlp.expert
        return self.total_parameters - idle - (self.embedding if self.head else 0)
