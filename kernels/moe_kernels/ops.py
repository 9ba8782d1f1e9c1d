"""The public ops and the table that finds each rank's kernels.

An op with weights has `prepare`, which packs them once in whatever form the kernel likes; nobody
else looks inside. Key of the table: (op, device kind, weight format, deterministic).

Shape legend: T tokens here, D width in, N width out, E experts (local), F expert width,
R rows received, H heads, d head width, c latent width, v value width, P pages, S page size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from moe_kernels.paged import PagedTokens

Packed = Any


class Linear(Protocol):
    def prepare(self, weight_ND: torch.Tensor) -> Packed: ...

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x_TD @ weight_ND.T + bias_N -> y_TN, in x's dtype."""
        ...


class Experts(Protocol):
    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed: ...

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        """Packed weights of experts that are packed already, each named by where it is and by its
        place there; at least one. Where every expert's weights lie alone they are not copied."""
        ...

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        """down(silu(gate(x)) * up(x)) of each row by its expert -> y_RD.

        Args:
            rows_RD: rows sorted by local expert.
            counts_E: int64 on the host, rows of each local expert; sums to R (which may be 0).
        """
        ...


class HeadLinear(Protocol):
    def prepare(self, weight_Hba: torch.Tensor) -> Packed: ...

    def __call__(self, x_THa: torch.Tensor, weight: Packed) -> torch.Tensor:
        """Each head by its own matrix: x_Ta @ weight_ba.T -> y_THb, in x's dtype."""
        ...


class SwiGlu(Protocol):
    def __call__(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of rows that hold the gate's numbers, then up's -> y_TF."""
        ...


class RmsNorm(Protocol):
    def __call__(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        """Normalised in float32 over the last dimension, scaled, in x's dtype."""
        ...


class Attention(Protocol):
    def __call__(
        self,
        q_THd: torch.Tensor,
        keys_PSHd: torch.Tensor,
        values_PSHv: torch.Tensor,
        paged: PagedTokens,
        scale: float,
    ) -> torch.Tensor:
        """Causal attention over the pages (already holding this step's keys) -> o_THv.

        Keys and values may have fewer heads than the queries (grouped-query attention). Every
        number in the caches is finite, also where nothing was written yet.
        """
        ...


class LatentAttention(Protocol):
    def __call__(
        self,
        q_THc: torch.Tensor,
        latent_PSc: torch.Tensor,
        paged: PagedTokens,
        scale: float,
        value_width: int,
    ) -> torch.Tensor:
        """Causal attention of every head over one shared latent -> o_THv.

        The latent row is key; its first `value_width` numbers are the value. Every number in the
        cache is finite, also where nothing was written yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ops:
    """The kernels that one rank runs, looked up once at start.

    Attributes:
        plain_linear: of weights that keep the dtype they come in, whatever the rank's weight
            format: routers, and the head.
        head_linear: likewise; its weights are a small part of attention's.
    """

    linear: Linear
    plain_linear: Linear
    head_linear: HeadLinear
    swiglu: SwiGlu
    experts: Experts
    rms_norm: RmsNorm
    attention: Attention
    latent_attention: LatentAttention
