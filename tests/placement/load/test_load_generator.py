"""Generated load has the skew, the drift and the correlations that were published and measured."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from moe_placement.load.generator import generate_load, sampled_windows
from moe_placement.load.skew import Skew, popularity
from moe_placement.load.trace import Floats, LoadError

DEEPSEEK = Skew(num_layers=58, num_experts=256)


def logs(skew: Skew, num_windows: int, seed: int = 0, **options: object) -> Floats:
    """Log-weights of each layer, made standard, window by window."""
    windows = popularity(skew, seed=seed, **options)  # type: ignore[arg-type]
    log_TLE = np.log(np.stack(list(islice(windows, num_windows))))
    log_TLE -= log_TLE.mean(axis=2, keepdims=True)
    standard_TLE: Floats = log_TLE / log_TLE.std(axis=2, keepdims=True)
    return standard_TLE


def test_the_skew_of_ranks_is_as_published() -> None:
    """TensorRT-LLM, EP32: 1.46 to 3.46 by layer, 2.56 on average."""
    imbalance_SL = np.array(
        [
            generate_load(
                DEEPSEEK, top_k=8, num_tokens=4096, num_windows=5, steps_per_window=10, seed=seed
            ).rank_imbalance(32)
            for seed in range(8)
        ]
    )
    assert 2.2 < imbalance_SL.mean() < 2.7
    low, high = np.quantile(imbalance_SL, [0.1, 0.9])
    assert 1.3 < low < 1.6
    assert 3.4 < high < 4.4


def test_half_of_the_drift_is_forgotten_as_asked() -> None:
    skew = replace(DEEPSEEK, drift=1.0, drift_steps=1000.0)
    log_TLE = logs(skew, 2, steps_per_window=1000)
    assert (log_TLE[0] * log_TLE[1]).mean() == pytest.approx(np.exp(-1), abs=0.02)
    steady_TLE = logs(replace(DEEPSEEK, drift=0.2), 50, steps_per_window=1000)
    assert (steady_TLE[0] * steady_TLE[-1]).mean() == pytest.approx(0.8, abs=0.03)


def test_prefill_and_decode_are_correlated() -> None:
    decode_LE, prefill_LE = logs(DEEPSEEK, 1)[0], logs(DEEPSEEK, 1, phase="prefill")[0]
    assert (decode_LE * prefill_LE).mean() == pytest.approx(0.7, abs=0.02)


def test_a_switch_of_the_data_renews_part_of_the_hot_set() -> None:
    skew = replace(DEEPSEEK, drift=0.0, switch_steps=100, switched=0.4)
    log_TLE = logs(skew, 4, steps_per_window=50)
    np.testing.assert_array_equal(log_TLE[0], log_TLE[1])
    hot_TLX = np.argsort(-log_TLE, axis=2)[:, :, :25]
    kept = [len(np.intersect1d(*pair)) for pair in zip(hot_TLX[1], hot_TLX[2], strict=True)]
    assert set(kept) == {15}
    np.testing.assert_allclose(np.sort(log_TLE[1], axis=1), np.sort(log_TLE[2], axis=1))


def test_same_seed_same_load() -> None:
    skew = Skew(num_layers=2, num_experts=16)
    first, again, other = (
        generate_load(skew, top_k=2, num_tokens=64, num_windows=3, seed=seed).counts_TLE
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_windows_hold_all_rows_of_their_steps() -> None:
    skew = Skew(num_layers=3, num_experts=16)
    windows = sampled_windows(skew, top_k=4, num_tokens=100, seed=0, steps_per_window=5)
    assert (next(windows).sum(axis=1) == 2000).all()


def test_experts_of_a_domain_are_chosen_together() -> None:
    skew = Skew(num_layers=2, num_experts=32, sigma=(0.1, 0.1))
    options = {"top_k": 4, "num_tokens": 512, "num_windows": 1, "seed": 0}
    load = generate_load(skew, num_domains=4, **options)  # type: ignore[arg-type]
    pairs_EE = load.coactivation_LEE
    assert pairs_EE is not None
    np.testing.assert_array_equal(pairs_EE[0], pairs_EE[0].T)
    assert pairs_EE[0].sum() == 4096 * 4 * 3
    partners = np.sort(pairs_EE[0], axis=1)[:, ::-1]
    assert partners[:, :7].mean() > 3 * partners[:, 7:-1].mean()
    assert generate_load(skew, **options).coactivation_LEE is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drift": 1.5}, "drift is 1.5"),
        ({"num_experts": 1}, "num_experts is 1"),
        ({"sigma": (1.0, 0.5)}, "sigma"),
        ({"drift_steps": 0.0}, "drift_steps"),
    ],
)
def test_a_process_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        replace(DEEPSEEK, **change)  # type: ignore[arg-type]


def test_more_choices_than_experts() -> None:
    with pytest.raises(LoadError, match="top_k is 256; it must be from 1 to 255"):
        next(sampled_windows(DEEPSEEK, top_k=256, num_tokens=1, seed=0))


@pytest.mark.parametrize("changes", [{"num_windows": 0}, {"num_domains": -1}, {"num_domains": 17}])
def test_a_record_of_nothing_is_refused(changes: dict[str, int]) -> None:
    values = {"top_k": 2, "num_tokens": 8, "num_windows": 1, "seed": 0} | changes
    with pytest.raises(LoadError, match="at least 1, and 0 to 16, the experts"):
        generate_load(Skew(num_layers=1, num_experts=16), **values)
