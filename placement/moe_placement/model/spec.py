"""What a model is to a planner: exact parameter counts by part, and its cache's size."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_placement.model.architectures import find_architecture, language_model
from moe_placement.model.attention import AttentionSpec
from moe_placement.model.fields import ConfigFields
from moe_placement.model.formats import format_bytes, matrix_bytes, part_formats
from moe_placement.model.mlp import MlpSpec, gated_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, counted in parameters.

    Attributes:
        embedding: the input embedding.
        head: the output head; 0 where it is the embedding's own weight.
        context_length: positions that it knows, prompt and answer together.
        attention_layers: each distinct attention, with the number of layers that have it.
        mlp: dense and routed feed-forward layers; counts are of one layer.
        num_draft_layers: layers for multi-token prediction that a checkpoint adds; they are
            counted in nothing else here.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    embedding: int
    head: int
    context_length: int
    attention_layers: tuple[tuple[AttentionSpec, int], ...]
    mlp: MlpSpec
    num_draft_layers: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelSpec":
        """Read a Hugging Face config.json; a key it leaves out has transformers' default.

        Raises:
            UnsupportedModelError: names the architecture and lists those supported.
            SpecError: names the key whose value cannot be right.
        """
        name, architecture = find_architecture(config)
        fields = ConfigFields(language_model(config), architecture.defaults, architecture.aliases)
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
            attention_layers=tuple(Counter(architecture.attention(fields)).items()),
            mlp=architecture.mlp(fields),
            num_draft_layers=fields.optional(architecture.draft_layers) or 0,
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
    def attention(self) -> AttentionSpec:
        """Of the layers that keep the most of a token; in most models of all layers."""
        return max((spec for spec, _ in self.attention_layers), key=lambda spec: spec.kv_elements)

    @property
    def kv_elements_per_token(self) -> int:
        """Cache elements of one token over all layers, windows aside."""
        return sum(count * spec.cache_elements for spec, count in self.attention_layers)

    @property
    def state_elements(self) -> int:
        """Elements of one sequence's recurrent state over all layers; they are float32."""
        return sum(count * spec.state_elements for spec, count in self.attention_layers)

    def kv_elements_at(self, length: float) -> float:
        """Cache elements of one sequence of `length` tokens, no layer keeping more than its
        window."""
        return sum(
            count * spec.cache_elements * min(length, spec.window or length)
            for spec, count in self.attention_layers
        )

    @property
    def rotary_elements(self) -> int:
        """A cosine and a sine of each number that turns, at every position."""
        return self.context_length * 2 * self.attention.rotary_width

    @property
    def norms(self) -> int:
        """All norms: two of each layer, those inside attention, and the last one."""
        inside = sum(count * spec.norms for spec, count in self.attention_layers)
        return (2 * self.num_layers + 1) * self.hidden_size + inside

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
            "attention": sum(count * spec.parameters for spec, count in self.attention_layers),
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

    @property
    def flops_per_token(self) -> dict[str, float]:
        """FLOPs of one token by part, without attention's pairs, which grow with the context:
        two for each parameter that it meets, and those of recurrent states."""
        num_moe = len(self.moe_layers)
        states = sum(count * spec.state_flops for spec, count in self.attention_layers)
        experts = num_moe * self.num_experts_per_token * self.mlp.expert
        count = self.parameters | {"experts": experts, "head": self.embedding}
        parts = ("attention", "dense_mlp", "gate", "shared_experts", "experts", "head")
        return {part: 2.0 * count[part] + states * (part == "attention") for part in parts}

    def expert_bytes(self, weight_format: str) -> int:
        """Bytes of one routed expert of one layer; FormatError for an unknown format."""
        rows = gated_rows(self.hidden_size, self.mlp.expert_width)
        return matrix_bytes(self.mlp.expert, rows, weight_format)

    def bytes(self, weight_format: str) -> dict[str, int]:
        """Bytes of the whole model by part, in a checkpoint whose experts have this format; see
        `part_formats` for what the other parts have. FormatError for an unknown format."""
        formats = part_formats(weight_format, has_experts=bool(self.moe_layers))
        gates = self.num_buffers
        return {
            part: format_bytes(count + gates * (part == "gate"), formats[part])
            for part, count in self.parameters.items()
        }
