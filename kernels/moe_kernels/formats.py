"""Weight formats that there are kernels for, and which goes with which dtype of activations."""

FLOAT_FORMATS = ("float32", "bfloat16", "float16")
WEIGHT_FORMATS = (*FLOAT_FORMATS, "int8")

_NARROWER = {
    "float32": ("bfloat16", "float16", "int8"),
    "bfloat16": ("int8",),
    "float16": ("int8",),
}


def served_formats(dtype: str) -> tuple[str, ...]:
    """Weight formats that every kind of device computes with, for activations of a dtype: the
    dtype itself first.

    Raises:
        ValueError: no such dtype.
    """
    if dtype not in _NARROWER:
        known = ", ".join(FLOAT_FORMATS)
        raise ValueError(f"activations cannot be {dtype!r}; choose one of {known}")
    return dtype, *_NARROWER[dtype]


def check_served(weight_format: str, dtype: str) -> None:
    """Raise ValueError, with those that are served, for a format that is not."""
    if weight_format not in WEIGHT_FORMATS:
        known = ", ".join(WEIGHT_FORMATS)
        raise ValueError(f"weight format {weight_format!r} does not exist; choose one of {known}")
    if weight_format not in served_formats(dtype):
        known = ", ".join(served_formats(dtype))
        raise ValueError(
            f"{weight_format} weights are not computed with {dtype} activations; choose {known}"
        )
