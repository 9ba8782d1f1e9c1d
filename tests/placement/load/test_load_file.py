"""Records of expert load survive their file; damaged, foreign and future files are named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moe_placement.load.trace import ExpertLoad, LoadError
from moe_placement.load.trace_file import load, save


@pytest.mark.parametrize("has_more", [False, True])
def test_a_record_comes_back_as_it_was(
    small_load: ExpertLoad, tmp_path: Path, has_more: bool
) -> None:
    if has_more:
        numbers = np.arange(32).reshape(2, 4, 4)
        pairs = numbers + numbers.swapaxes(1, 2)
        small_load = replace(small_load, coactivation_LEE=pairs, source_LNE=numbers[:, :3])
    save(small_load, tmp_path / "load.npz")
    back = load(tmp_path / "load.npz")
    assert (back.model, back.layers, back.steps_per_window) == ("small", (1, 3), 10)
    np.testing.assert_array_equal(back.counts_TLE, small_load.counts_TLE)
    for name in ("coactivation_LEE", "source_LNE"):
        np.testing.assert_array_equal(getattr(back, name), getattr(small_load, name))
    assert [path.name for path in tmp_path.iterdir()] == ["load.npz"]


def arrays(**changes: Any) -> dict[str, Any]:
    sound: dict[str, Any] = {
        "version": 1,
        "model": "m",
        "layers": [0],
        "steps_per_window": 1,
        "counts_TLE": np.ones((1, 1, 2), np.int64),
    }
    return {key: value for key, value in (sound | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "format version 2 is not known; this program reads version 1"),
        ({"version": None}, "'version' is missing"),
        ({"counts_TLE": None}, "'counts_TLE' is missing"),
        ({"counts_TLE": np.ones((1, 1, 2))}, "'counts_TLE' is float64 with 3 axes"),
        ({"layers": 0}, "'layers' is int64 with 0 axes"),
        ({"counts_TLE": np.zeros((1, 1, 2), np.int64)}, "layer 0 has no tokens"),
        ({"model": np.array([{}])}, "it is damaged: Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_is_wrong_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "load.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(LoadError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_sound_file_by_hand_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "load.npz", **arrays(extra=np.ones(3)))
    assert load(tmp_path / "load.npz").num_experts == 2


def test_what_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "load.npz"
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        load(path)
    path.write_text("layers: 3")
    with pytest.raises(LoadError, match=r"damaged, or no \.npz file"):
        load(path)


def test_whatever_is_damaged_is_named(small_load: ExpertLoad, tmp_path: Path) -> None:
    path = tmp_path / "load.npz"
    save(small_load, path)
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    num_refused = 0
    for _ in range(200):
        damaged = bytearray(sound)
        for place in random.integers(0, len(sound), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except LoadError as error:
            assert str(path) in str(error)
            num_refused += 1
    assert num_refused > 100
