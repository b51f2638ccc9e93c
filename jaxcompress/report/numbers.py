"""Numbers as people read them: few digits, a unit, a true minus sign, and "n/a" for no number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "MINUS",
    "NA",
    "TIMES",
    "count",
    "interval",
    "number",
    "p_value",
    "percent",
    "quantity",
    "ratio",
    "reached",
    "real",
    "spread",
]

NA = "n/a"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def real(value: Any) -> float | None:
    """A finite float, or `None` for whatever is none: `None`, NaN, infinity, text.

    Example:
      >>> real(1), real(None), real(float("nan"))
      (1.0, None, None)
    """
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits, as many of them before the point as there are.

    Example:
      >>> number(0.89541), number(1234.5), number(0), number(None)
      ('0.895', '1,234', '0', 'n/a')
    """
    value = real(value)
    if value is None:
        return NA
    if value and abs(value) < 1e-4:
        return _signed(f"{value:.{digits - 1}e}")
    # Of the rounded number: 99.96 has three digits before the point, not two.
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    places = max(0, digits - 1 - exponent) if value else 0
    return _signed(f"{value:,.{places}f}")


def percent(value: Any, places: int = 1, *, sign: bool = False) -> str:
    """Something that is in percent already, with a fixed number of places.

    Example:
      >>> percent(47.123), percent(3.2, sign=True), percent(None)
      ('47.1 %', '+3.2 %', 'n/a')
    """
    value = real(value)
    if value is None:
        return NA
    return _signed(f"{value:{'+' if sign else ''},.{places}f}") + " %"


def count(value: Any) -> str:
    """A whole number with separators.

    Example:
      >>> count(124439808)
      '124,439,808'
    """
    value = real(value)
    return NA if value is None else _signed(f"{value:,.0f}")


def quantity(value: Any, unit: str, digits: int = 3) -> str:
    """A number with an SI prefix and its unit.

    Example:
      >>> quantity(250e6, "FLOP"), quantity(0.0123, "s"), quantity(None, "J")
      ('250 MFLOP', '12.3 ms', 'n/a')
    """
    value = real(value)
    if value is None:
        return NA
    options = _PREFIXES if abs(value) >= 0.9995 or value == 0 else _SMALL
    # 0.9995 of a prefix rounds up to it: 999,960 is "1 M", not "1,000 k".
    fits = (option for option in options if abs(value) >= option[0] * 0.9995)
    scale, prefix = next(fits, options[-1])
    text = number(value / scale, digits)
    return f"{text} {prefix}{unit}".rstrip()


def ratio(value: Any, base: Any) -> str:
    """How many times `base` a value is.

    Example:
      >>> ratio(82, 124) == "0.66" + TIMES, ratio(1, 0)
      (True, 'n/a')
    """
    value, base = real(value), real(base)
    if value is None or not base:
        return NA
    return number(value / base, 2) + TIMES


def interval(bounds: Sequence[Any] | None, digits: int = 3, unit: str = "") -> str:
    """Two ends in brackets.

    Example:
      >>> interval([0.31, 0.45]), interval(None)
      ('[0.310, 0.450]', 'n/a')
    """
    ends = [real(bound) for bound in bounds] if bounds is not None else []
    if len(ends) != 2 or None in ends:
        return NA
    return f"[{number(ends[0], digits)}, {number(ends[1], digits)}]{unit and ' ' + unit}"


def p_value(value: Any) -> str:
    """A probability under a null, with its relation sign.

    Example:
      >>> p_value(0.0132), p_value(0.00001), p_value(None)
      ('p = 0.013', 'p < 0.001', 'p n/a')
    """
    value = real(value)
    if value is None:
        return "p n/a"
    return "p < 0.001" if value < 0.001 else f"p = {number(value, 2)}"


def reached(values: Sequence[Any], form: Callable[[float], str] = "{:g}".format) -> str:
    """Median of repeats, of which some may never have got there, and the range of those that did.

    Args:
      values: one for each repeat; `None`, NaN or infinity for never, which counts as the largest.
      form: a number as text.

    Example:
      >>> reached([5, 3, None]), reached([3, None, None]), reached([None]), reached([3])
      ('5 (3 to 5, 1 never)', 'never (3 to 3, 2 never)', 'never', '3')
    """
    found = sorted(value for value in map(real, values) if value is not None)
    never = len(values) - len(found)
    if not found or len(values) == 1:
        return form(found[0]) if found else "never"
    middle = statistics.median([*found, *[math.inf] * never])
    gone = f", {never} never" if never else ""
    said = form(middle) if math.isfinite(middle) else "never"
    return f"{said} ({form(found[0])} to {form(found[-1])}{gone})"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean of repeats, and the range where there are several.

    Example:
      >>> spread([1.0]), spread([1.0, 2.0], 1)
      ('1.000', '1.5 [1.0, 2.0]')
    """
    mean = f"{sum(values) / len(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _signed(text: str) -> str:
    # A value that rounds to nothing has no sign.
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-+")
    return text.replace("-", MINUS)
