"""The words of Guard(skip=...): which steps not to take."""

from __future__ import annotations

import re
from typing import Any

from ._core import Error

_NUMBER = r"(\d+(?:\.\d+)?)"
_RULES = (
    (re.compile(_NUMBER + "x-rolling-mean"), "skip_above_rolling_mean"),
    (re.compile("z-score-" + _NUMBER), "skip_above_z"),
    (re.compile("robust-z-score-" + _NUMBER), "skip_above_robust_z"),
    (re.compile("above-" + _NUMBER), "skip_above"),
)
_ALLOWED = "3x-rolling-mean, z-score-6, robust-z-score-6, above-100, non-finite, with any numbers, joined by commas"


def skip_options(words: str) -> dict[str, Any]:
    """The options of the core that the words stand for. Raises Error with what is allowed."""
    options: dict[str, Any] = {}
    for word in (part.strip() for part in str(words).split(",")):
        name, value = _option_of(word)
        if name in options:
            raise Error(f"guard options: skip is {words!r}, which says {name} twice")
        options[name] = value
    return options


def _option_of(word: str) -> tuple[str, Any]:
    if word == "non-finite":
        return "skip_non_finite", True
    for pattern, name in _RULES:
        if found := pattern.fullmatch(word):
            return name, float(found[1])
    raise Error(f"guard options: skip has the word {word!r}; allowed: {_ALLOWED}")
