"""Makes records of expert load where none was measured: skewed, drifting, sampled as routers do."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from moe_placement.load.sampling import inclusion, sample_choices, sample_rows
from moe_placement.load.skew import Phase, Skew, popularity
from moe_placement.load.trace import ExpertLoad, Floats, Ints, LoadError

_TOKENS_FOR_PAIRS = 4096


def sampled_windows(
    skew: Skew,
    *,
    top_k: int,
    num_tokens: int,
    seed: int,
    steps_per_window: int = 1,
    phase: Phase = "decode",
) -> Iterator[Ints]:
    """Rows that each expert gets, window by window, without end.

    Popularity moves from window to window and stands still within one.

    Args:
        num_tokens: of one step.

    Yields:
        (layers, experts); each layer sums to tokens times steps times k.

    Raises:
        LoadError: a token cannot choose that many experts, or there is nothing to sample.
    """
    if not 1 <= top_k < skew.num_experts:
        raise LoadError(f"top_k is {top_k}; it must be from 1 to {skew.num_experts - 1}")
    if num_tokens < 1 or steps_per_window < 1:
        raise LoadError(f"{num_tokens} tokens in {steps_per_window} steps: both must be above 0")
    rng = np.random.default_rng([seed, 3 if phase == "decode" else 4])
    for share_LE in popularity(skew, seed=seed, steps_per_window=steps_per_window, phase=phase):
        yield sample_rows(rng, inclusion(share_LE, top_k), num_tokens * steps_per_window)


def generate_load(
    skew: Skew,
    *,
    top_k: int,
    num_tokens: int,
    num_windows: int,
    seed: int,
    steps_per_window: int = 1,
    phase: Phase = "decode",
    num_domains: int = 0,
    model: str = "generated",
) -> ExpertLoad:
    """A whole record, its layers numbered from 0.

    Args:
        num_domains: above 0, experts of a layer fall into so many blocks that tokens of one
            subject choose together, and the record has co-activations.

    Raises:
        LoadError: as `sampled_windows` does, or there are no windows, or more domains than experts.
    """
    if num_windows < 1 or not 0 <= num_domains <= skew.num_experts:
        raise LoadError(
            f"num_windows is {num_windows} and num_domains {num_domains}; they must be at least 1, "
            f"and 0 to {skew.num_experts}, the experts"
        )
    windows = sampled_windows(
        skew,
        top_k=top_k,
        num_tokens=num_tokens,
        seed=seed,
        steps_per_window=steps_per_window,
        phase=phase,
    )
    counts_TLE = np.stack(list(islice(windows, num_windows)))
    share_LE = counts_TLE.sum(axis=0) / counts_TLE.sum(axis=(0, 2))[:, None]
    pairs_LEE = _coactivation(share_LE, top_k, num_domains, seed) if num_domains else None
    return ExpertLoad(
        model=model,
        layers=tuple(range(skew.num_layers)),
        counts_TLE=counts_TLE,
        steps_per_window=steps_per_window,
        coactivation_LEE=pairs_LEE,
    )


def _coactivation(share_LE: Floats, top_k: int, num_domains: int, seed: int) -> Ints:
    """Pairs of a few thousand tokens, whose subject makes its experts 8 times as likely."""
    rng = np.random.default_rng([seed, 5])
    num_experts = share_LE.shape[1]
    tokens = _TOKENS_FOR_PAIRS // num_domains
    pairs_LEE = np.zeros((*share_LE.shape, num_experts), np.int64)
    for layer, share_E in enumerate(share_LE):
        domain_E = rng.permutation(np.arange(num_experts) % num_domains)
        for domain in range(num_domains):
            biased_E = np.where(domain_E == domain, 8.0, 1.0) * (share_E + 1e-9)
            chance_E = inclusion(biased_E / biased_E.sum(), top_k)
            chosen_TE = np.zeros((tokens, num_experts), np.int64)
            np.put_along_axis(chosen_TE, sample_choices(rng, chance_E, tokens), 1, axis=1)
            pairs_LEE[layer] += chosen_TE.T @ chosen_TE
        np.fill_diagonal(pairs_LEE[layer], 0)
    return pairs_LEE
