"""What a cost model must beat: the nearest measured row, and boosted trees over the columns.

Shapes: R rows, C columns of numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moe_placement.accuracy.evaluate import Predictor
from moe_placement.accuracy.rows import Row
from moe_placement.hardware.catalogue import find_device

Floats = NDArray[np.float64]

_NUMBERS = (
    *("isl", "osl", "concurrency", "tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size"),
    *("prefill_num_workers", "prefill_tp_size", "prefill_attention_dp_size"),
    *("prefill_moe_tp_size", "prefill_moe_ep_size"),
    *("decode_num_workers", "decode_tp_size", "decode_attention_dp_size"),
    *("decode_moe_tp_size", "decode_moe_ep_size"),
)
_NAMES = ("model_path", "mode", "backend", "precision", "moe_quant_mode")
# A name that differs weighs as much as a number that is 8 times larger or smaller.
_DOUBLINGS_OF_A_NAME = 3.0


class MissingPackageError(ValueError):
    """A baseline needs a package that is not installed; the message is the command."""


def nearest_neighbour(train: Sequence[Row]) -> Predictor:
    """The measurement of the nearest training row, by doublings of its numbers and by names."""
    known_RC, names = _numbers(train), _names(train)
    measured = [(row.measured_ttft, row.measured_tpot) for row in train]

    def predict(rows: Sequence[Row]) -> list[tuple[float, float]]:
        found = []
        for numbers_C, own in zip(_numbers(rows), _names(rows), strict=True):
            squares_R = np.square(known_RC - numbers_C).sum(axis=1)
            squares_R += _DOUBLINGS_OF_A_NAME**2 * (names != own).sum(axis=1)
            found.append(measured[int(squares_R.argmin())])
        return found

    return predict


def boosted_trees(train: Sequence[Row]) -> Predictor:
    """scikit-learn's histogram gradient boosting on log TTFT and log TPOT, one model of each.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ModuleNotFoundError:
        raise MissingPackageError("pip install moe-serve[accuracy]") from None
    codes = _codes(train)
    columns_RC = np.hstack([_numbers(train), _coded(train, codes)])
    is_name = [False] * (columns_RC.shape[1] - len(_NAMES)) + [True] * len(_NAMES)
    models = [
        HistGradientBoostingRegressor(
            loss="absolute_error",
            max_iter=300,
            min_samples_leaf=5,
            random_state=0,
            categorical_features=is_name,
            early_stopping=False,
        ).fit(columns_RC, np.log([getattr(row, target) for row in train]))
        for target in ("measured_ttft", "measured_tpot")
    ]

    def predict(rows: Sequence[Row]) -> list[tuple[float, float]]:
        columns_RC = np.hstack([_numbers(rows), _coded(rows, codes)])
        ttft_R, tpot_R = (np.exp(model.predict(columns_RC)).tolist() for model in models)
        return list(zip(ttft_R, tpot_R, strict=True))

    return predict


def _numbers(rows: Sequence[Row]) -> Floats:
    """Base-2 logarithms of the columns, of which one that the row's mode does not have is 1, and
    of the device's peaks, so that a system without training rows has near ones."""
    devices = {row.system: find_device(row.system) for row in rows}
    peaks = {
        system: (device.bandwidth, device.flops["bfloat16"]) for system, device in devices.items()
    }
    return np.log2(
        [[*(getattr(row, name) or 1 for name in _NUMBERS), *peaks[row.system]] for row in rows]
    )


def _names(rows: Sequence[Row]) -> NDArray[np.str_]:
    return np.array([[getattr(row, name) for name in _NAMES] for row in rows])


def _codes(rows: Sequence[Row]) -> list[dict[str, int]]:
    return [
        {value: code for code, value in enumerate(sorted(set(column)))}
        for column in _names(rows).T.tolist()
    ]


def _coded(rows: Sequence[Row], codes: Sequence[dict[str, int]]) -> Floats:
    """Names as numbers; one that was not trained on is missing."""
    return np.array(
        [
            [code.get(name, np.nan) for code, name in zip(codes, names, strict=True)]
            for names in _names(rows).tolist()
        ],
        dtype=np.float64,
    )
