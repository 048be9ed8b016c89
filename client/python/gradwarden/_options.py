"""Keyword arguments to the core's option structs."""

from . import _core
from ._core import Error

_WORDS = {"clip_rule": _core.ClipRule, "on_spike": _core.SpikeAction, "fallback": _core.Fallback}


def names(options):
    return [name for name in dir(options) if not name.startswith("_")]


def _value(name, value):
    """Enumerations also as lower-case words: clip_rule="z_score"."""
    if name not in _WORDS or not isinstance(value, str):
        return value
    words = [word for word in dir(_WORDS[name]) if word.isupper()]
    if value.upper() not in words:
        raise Error(f"guard options: {name} is {value!r}; allowed: {', '.join(word.lower() for word in words)}")
    return getattr(_WORDS[name], value.upper())


def fill(options, given):
    """Sets each of the given fields; ranges are checked by the core."""
    for name, value in given.items():
        if name not in names(options):
            raise Error(f"guard options: there is no {name!r}; there are: {', '.join(names(options))}")
        wanted = getattr(options, name)
        value = _value(name, value)  # outside the try: its Error says more
        try:
            setattr(options, name, value)
        except (TypeError, OverflowError) as error:
            raise Error(f"guard options: {name} is {value!r}; allowed: a value such as {wanted!r}") from error
    return options
