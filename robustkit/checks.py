"""Bad input is refused in a sentence: the field, the value, what is allowed."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Hashable
from numbers import Real


class InputError(ValueError):
    """Bad input, said in one sentence: the field, the value, what is allowed."""


def check_choice(field: str, value, allowed) -> None:
    """Raise InputError unless value is one of allowed, naming the nearest spelling."""
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
    limits = [(low, f"at least {low}"), (above, f"above {above}"), (high, f"at most {high}")]
    allowed = " and ".join([kind] + [text for limit, text in limits if limit is not None])
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    fits = (
        math.isfinite(number)
        and not (integer and value != int(value))
        and not (low is not None and number < low)
        and not (above is not None and number <= above)
        and not (high is not None and number > high)
    )
    if not fits:
        raise InputError(f"{field} is {value!r}, but must be {allowed}" + (" (or None)" if optional else ""))
    return int(value) if integer else number + 0.0  # -0.0 becomes 0.0: one value, one key


def check_sizes(**sizes) -> list[int]:
    """Return sizes by name as integers, or raise InputError: a depth is at least 2, any other at least 1."""
    return [check_number(name, size, low=2 if name == "depth" else 1, integer=True) for name, size in sizes.items()]
