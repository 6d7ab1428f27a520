"""Checks that refuse bad input in one sentence, which names the field, the value and what is allowed."""

from __future__ import annotations

import contextlib
import difflib
import math
import operator
from collections.abc import Hashable
from numbers import Real


class InputError(ValueError):
    """Bad input; the message is one sentence that names the field, the value and what is allowed."""


def check_choice(field: str, value, allowed) -> None:
    """Raise InputError, which names the nearest spelling, unless value is one of allowed."""
    known = False
    if isinstance(value, Hashable):  # an array would compare entry by entry
        with contextlib.suppress(TypeError, ValueError):
            known = value in tuple(allowed)
    if not known:
        near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{field} is {value!r}, but must be one of {', '.join(map(str, allowed))}{hint}")


def check_number(field: str, value, *, low=None, high=None, above=None, integer=False, optional=False):
    """Return value as int or float, or raise InputError naming the field, the value and the range."""
    if value is None and optional:
        return None
    kind = "an integer" if integer else "a finite number"
    limits = [(low, operator.ge, "at least"), (above, operator.gt, "above"), (high, operator.le, "at most")]
    limits = [(limit, within, words) for limit, within, words in limits if limit is not None]
    allowed = " and ".join([kind] + [f"{words} {limit}" for limit, _, words in limits])
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    fits = math.isfinite(number) and not (integer and value != int(value))
    if not (fits and all(within(number, limit) for limit, within, _ in limits)):
        raise InputError(f"{field} is {value!r}, but must be {allowed}" + (" (or None)" if optional else ""))
    return int(value) if integer else number + 0.0  # -0.0 becomes 0.0: one value, one key


# Far beyond what any network computes in; what is beyond it overflows in float64 too.
LIMITS = {"power": {"low": -30}, "gain": {"above": 0, "high": 1e100}}


def check_own(name: str, value, init: str) -> float | None:
    """Return the value of a field that belongs to the initialisation of its name alone: "power", "gain"."""
    value = check_number(name, value, optional=init != name, **LIMITS[name])
    if value is not None and init != name:
        raise InputError(f"{name} is {value!r}, but init is {init!r}: it must be None")
    return value


def check_sizes(**sizes) -> list[int]:
    """Return sizes by name as integers, or raise InputError: a depth must be at least 2, any other size 1."""
    return [check_number(name, size, low=2 if name == "depth" else 1, integer=True) for name, size in sizes.items()]
