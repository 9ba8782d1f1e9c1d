"""How long a worker of unlike parts takes for a step: a StepTimer over one placement.

Shapes: P parts, N ranks, L distinct MoE layers, S slots of one layer, X points of a table.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from moe_placement.cost.step_model import StepModel
from moe_placement.cost.step_shape import StepShape
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import ExpertPlacement, Floats, Ints
from moe_placement.solver.workers.bridge import Bridge

_SHARE_ROUNDS = 12
# Points of a table, and the least and most tokens that it holds.
_NUM_POINTS = 48
_FEWEST, _MOST = 0.5, 4e6


@dataclass(frozen=True, slots=True, eq=False)
class PlacedExperts:
    """The routed experts of all layers as they are placed.

    Attributes:
        rows_LS: each slot's share of its layer's rows.
        rank_LS: the rank of each slot.
        ranks_N: like ranks that each one stands for, which share its slots evenly.
        times_L: layers of the model that each distinct one stands for.
        popularity_shape: of the gamma distribution by which experts are chosen, as the step
            model takes it; rows of an expert are then negative binomial.
        fullest_rows: of the fullest rank over the mean, from step to step.
    """

    rows_LS: Floats
    rank_LS: Ints
    ranks_N: Floats
    times_L: Floats
    costs: RankCosts
    chosen: int
    popularity_shape: float
    fullest_rows: float

    def seconds(self, tokens: float) -> float:
        """Of all layers, each at its slowest rank."""
        rows_LS = self.rows_LS * (tokens * self.chosen)
        shape = self.popularity_shape
        reads_LS = 1 - (1 + rows_LS / shape) ** -shape
        seconds_LN = self.costs.seconds(
            self._by_rank(reads_LS) / self.ranks_N,
            self._by_rank(rows_LS) * self.fullest_rows / self.ranks_N,
        )
        return float(seconds_LN.max(1) @ self.times_L)

    def mass_of_parts(self, part_N: Ints) -> Floats:
        """Share of each layer's rows that goes to each part."""
        by_rank_LN = self._by_rank(self.rows_LS)
        return np.stack([by_rank_LN[:, part_N == p].sum(1) for p in range(part_N.max() + 1)], 1)

    def _by_rank(self, value_LS: Floats) -> Floats:
        num_layers, num_ranks = len(value_LS), len(self.ranks_N)
        index_LS = self.rank_LS + num_ranks * np.arange(num_layers)[:, None]
        sums = np.bincount(
            index_LS.ravel(), weights=value_LS.ravel(), minlength=num_layers * num_ranks
        )
        return sums.astype(np.float64).reshape(num_layers, num_ranks)


def placed_rows(placement: ExpertPlacement, share_LE: Floats) -> Floats:
    """Each slot's share of its layer's rows; (L, S)."""
    is_held = placement.expert_LS >= 0
    share_LS = np.take_along_axis(share_LE, np.where(is_held, placement.expert_LS, 0), axis=1)
    rows_LS: Floats = share_LS * placement.weight_LS * is_held
    return rows_LS


@dataclass(frozen=True, slots=True, eq=False)
class MixedTimer:
    """The slowest part's attention, then every layer's slowest rank and the bridge.

    Experts and bridge depend on the number of tokens alone: they are worked out once, at points
    so near that a line between two of them is within 2 %.

    Attributes:
        models: of each part as if it were alone; None where it holds experts only.
        share_P: of the tokens, as each part's speed allows.
        mass_LP: share of each distinct layer's rows that goes to each part.
    """

    models: tuple[StepModel | None, ...]
    share_P: Floats
    experts: PlacedExperts
    bridge: Bridge
    mass_LP: Floats
    tokens_X: Floats = field(init=False)
    experts_X: Floats = field(init=False)
    bridge_X: Floats = field(init=False)

    def __post_init__(self) -> None:
        tokens_X = np.geomspace(_FEWEST, _MOST, _NUM_POINTS)
        bridge_X = [self._bridge_seconds(tokens) for tokens in tokens_X.tolist()]
        experts_X = [self.experts.seconds(tokens) for tokens in tokens_X.tolist()]
        object.__setattr__(self, "tokens_X", tokens_X)
        object.__setattr__(self, "bridge_X", np.array(bridge_X))
        object.__setattr__(self, "experts_X", np.array(experts_X))

    def seconds(self, shape: StepShape) -> float:
        """Seconds of one step; 0 for a step without tokens."""
        return sum(self.parts(shape).values())

    def parts(self, shape: StepShape) -> dict[str, float]:
        """The same by part; empty for a step without tokens."""
        if not shape.num_tokens:
            return {}
        tokens = shape.num_tokens
        return {
            "attention": max(other_seconds(self.models, self.share_P, shape)),
            "experts": float(np.interp(tokens, self.tokens_X, self.experts_X)),
            "bridge": float(np.interp(tokens, self.tokens_X, self.bridge_X)),
        }

    @property
    def latency(self) -> float:
        """Seconds of a step's crossings however few tokens cross."""
        return 2 * self.bridge.latency * float(self.experts.times_L.sum())

    def _bridge_seconds(self, tokens: float) -> float:
        seconds_L = self.bridge.layer_seconds(self.share_P * tokens, self.mass_LP)
        return float(seconds_L @ self.experts.times_L)


def other_seconds(
    models: tuple[StepModel | None, ...], share_P: Floats, shape: StepShape
) -> list[float]:
    """Seconds of each part for its share of a step, without experts; with its own exchange for
    the tokens whose experts it has itself."""
    return [
        _other_seconds(model, scaled(shape, share)) if model and share > 0 else 0.0
        for model, share in zip(models, share_P.tolist(), strict=True)
    ]


def _other_seconds(model: StepModel, shape: StepShape) -> float:
    parts = model.parts(shape)
    return sum(parts.values()) - parts.get("experts", 0.0)


def scaled(shape: StepShape, share: float) -> StepShape:
    """A share of a step's tokens and sequences."""
    return replace(
        shape,
        prefill_tokens=shape.prefill_tokens * share,
        decode_sequences=shape.decode_sequences * share,
    )


def token_shares(
    models: tuple[StepModel | None, ...], groups_P: Floats, shape: StepShape
) -> Floats:
    """Shares at which the parts' attention ends together, as nearly as fixed times allow."""
    share_P: Floats = groups_P / groups_P.sum()
    is_busy_P = share_P > 0
    if is_busy_P.sum() == 1:
        return share_P
    for _ in range(_SHARE_ROUNDS):
        seconds_P = np.array(other_seconds(models, share_P, shape))
        mean = seconds_P[is_busy_P].mean()
        faster_P = np.where(is_busy_P, mean / np.where(is_busy_P, seconds_P, 1.0), 0.0)
        share_P = share_P * np.sqrt(faster_P)
        share_P = share_P / share_P.sum()
    return share_P
