"""How popular experts are, how that differs between layers and phases, and how it drifts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_placement.load.trace import Floats, LoadError

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """A random process of expert popularity.

    The logarithm of a weight is the layer's sigma times a standard normal variable, of whose
    variance a share `drift` follows an AR(1) process and the rest stays until the data changes.
    The defaults follow what TensorRT-LLM publishes for DeepSeek-R1 (examples/wide_ep/
    ep_load_balancer/README.md): at EP32 the fullest rank has 2.56 times the mean, 1.46 to 3.46 in
    the layers shown; here 2.4, and 1.4 to 4.0 in four layers of five. After EPLB on 288 slots of 36
    ranks with 1,024 rows each it has 1.115 times; here 1.106, where EPLB plans every 500 steps on
    the rows of the last 500 and meets those after them.

    Attributes:
        sigma: least and most of a layer; it is uniform between them.
        drift: share of the variance that drifts; 1 forgets all.
        drift_steps: steps after which the drifting part has kept 1/e of itself.
        switch_steps: steps between changes of the data that requests are about; 0 is never.
        switched: share of the hottest tenth of the experts that then change places with others.
        phase_correlation: of the log-weights of prefill with those of decode.
    """

    num_layers: int
    num_experts: int
    sigma: tuple[float, float] = (0.4, 1.5)
    drift: float = 0.012
    drift_steps: float = 1000.0
    switch_steps: int = 0
    switched: float = 0.4
    phase_correlation: float = 0.7

    def __post_init__(self) -> None:
        """Raise LoadError, naming the attribute, for a value that cannot be."""
        for name in ("drift", "switched", "phase_correlation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise LoadError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        for name, least in (("num_layers", 1), ("num_experts", 2), ("switch_steps", 0)):
            if getattr(self, name) < least:
                raise LoadError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0.0 <= self.sigma[0] <= self.sigma[1] or self.drift_steps <= 0:
            raise LoadError(f"sigma {self.sigma} must grow from 0, drift_steps be above 0")


def popularity(
    skew: Skew, *, seed: int, steps_per_window: int = 1, phase: Phase = "decode"
) -> Iterator[Floats]:
    """Each expert's share of its layer's rows, window by window, without end.

    Runs with one seed and both phases are of one deployment: sigmas are the same, log-weights
    correlated.

    Yields:
        (layers, experts); each layer sums to 1.
    """
    shared = np.random.default_rng([seed, 0])
    own = np.random.default_rng([seed, 1 if phase == "decode" else 2])
    shape = (skew.num_layers, skew.num_experts)
    sigma_L1 = shared.uniform(*skew.sigma, size=(skew.num_layers, 1))
    steady_LE = _decode(skew, shared, own) if phase == "decode" else shared.standard_normal(shape)
    moving_LE = own.standard_normal(shape)
    kept = float(np.exp(-steps_per_window / skew.drift_steps))
    step = 0
    while True:
        log_LE = np.sqrt(1 - skew.drift) * steady_LE + np.sqrt(skew.drift) * moving_LE
        weight_LE = np.exp(sigma_L1 * log_LE)
        yield weight_LE / weight_LE.sum(axis=1, keepdims=True)
        moving_LE = kept * moving_LE + np.sqrt(1 - kept**2) * own.standard_normal(shape)
        step += steps_per_window
        if skew.switch_steps and step % skew.switch_steps < steps_per_window:
            steady_LE = _switch(skew, own, steady_LE)


def _decode(skew: Skew, shared: np.random.Generator, own: np.random.Generator) -> Floats:
    shape, correlation = (skew.num_layers, skew.num_experts), skew.phase_correlation
    prefill_LE = shared.standard_normal(shape)
    decode_LE: Floats = correlation * prefill_LE
    decode_LE += np.sqrt(1 - correlation**2) * own.standard_normal(shape)
    return decode_LE


def _switch(skew: Skew, rng: np.random.Generator, steady_LE: Floats) -> Floats:
    """Some of the hot experts of each layer change places with cold ones."""
    num_hot = max(1, skew.num_experts // 10)
    num_switched = round(skew.switched * num_hot)
    order_LE = np.argsort(-steady_LE, axis=1)
    shuffled_LE = rng.permuted(order_LE[:, num_hot:], axis=1)
    hot_LX = rng.permuted(order_LE[:, :num_hot], axis=1)[:, :num_switched]
    cold_LX = shuffled_LE[:, :num_switched]
    switched_LE = steady_LE.copy()
    layers = np.arange(skew.num_layers)[:, None]
    switched_LE[layers, hot_LX] = steady_LE[layers, cold_LX]
    switched_LE[layers, cold_LX] = steady_LE[layers, hot_LX]
    return switched_LE
