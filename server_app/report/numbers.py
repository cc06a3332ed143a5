"""Numbers as a page shows them: short, and where the marks of an axis are."""

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """Return a number as short as it can be read: 1200, 12.3, 0.0042."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) >= 1e9:
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if digits else text
    return "0" if text == "-0" else text


def marks(values: Sequence[float]) -> list[str]:
    """Return the numbers beside an axis, no two alike: of small ones as 5e-06."""
    texts = [number(value) for value in values]
    alike = len(set(texts)) < len(set(values))
    return [f"{value:.4g}" for value in values] if alike else texts


def with_half(middle: float, half: float | None) -> str:
    """Return a mean with half its interval, ``0.81 ± 0.02``, if there is one.

    The half has two digits that count, and the mean as many decimals.
    """
    text = number(middle)
    if half is None or text == "–":
        return text
    if half < 5e-5 or max(abs(middle), half) >= 1e9:
        return f"{text} ± {number(half)}"
    decimals = min(4, max(0, 1 - math.floor(math.log10(half))))
    return f"{middle:.{decimals}f} ± {half:.{decimals}f}"


def newest(values: Sequence[float]) -> float:
    """Return the last number that is known; NaN where none is."""
    return next((v for v in reversed(values) if math.isfinite(v)), math.nan)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers from ``low`` to at least ``high``, about ``wanted``."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low, low + 1]
    raw = span / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 0.0
    if not (power > 0 and math.isfinite(4 * span) and low + raw > low):
        return [low, high]  # beyond what round numbers can be made of
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
