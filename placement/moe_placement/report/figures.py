"""Figures as people read them: seconds, money, shares."""


def seconds(value: float) -> str:
    """Three digits in s, ms or us."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e6:.2g} us" if value else "0 s"


def rate(value: float) -> str:
    """Three digits, whole where there are more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def money(value: float | None) -> str:
    return "no price" if value is None else f"{value:,.2f}"
