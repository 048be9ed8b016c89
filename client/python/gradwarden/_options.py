"""Keyword arguments to the core's option structs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from . import _core
from ._core import Error
from ._skip import skip_options

_WORDS: dict[str, Any] = {"clip_rule": _core.ClipRule, "on_spike": _core.SpikeAction, "fallback": _core.Fallback}
_OBSERVABLE = ("parameters",)
_OBSERVE_EVERY = 10  # steps; a read of the parameters costs what one of the gradients does

Struct = TypeVar("Struct", _core.GuardOptions, _core.ReporterOptions)


def names(options: object) -> list[str]:
    return [name for name in dir(options) if not name.startswith("_")]


def _value(name: str, value: Any) -> Any:
    """Enumerations also as lower-case words: clip_rule="z_score"."""
    if name not in _WORDS or not isinstance(value, str):
        return value
    words = [word for word in dir(_WORDS[name]) if word.isupper()]
    if value.upper() not in words:
        raise Error(f"guard options: {name} is {value!r}; allowed: {', '.join(word.lower() for word in words)}")
    return getattr(_WORDS[name], value.upper())


def fill(options: Struct, given: Mapping[str, Any]) -> Struct:
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


def guard_options(given: Mapping[str, Any], skip: str | None, observe: Any) -> tuple[_core.GuardOptions, bool]:
    """The core's options, and whether they need the parameters."""
    chosen = dict(given)
    chosen.setdefault("threads", torch.get_num_threads())
    for name, value in ({} if skip is None else skip_options(skip)).items():
        if name in given:
            raise Error(f"guard options: both skip={skip!r} and {name} are given; allowed: one of them")
        chosen[name] = value
    observed = (observe,) if isinstance(observe, str) else tuple(observe)
    for word in observed:
        if word not in _OBSERVABLE:
            raise Error(f"guard options: observe has {word!r}; allowed: {', '.join(_OBSERVABLE)}")
    if observed:
        chosen.setdefault("observe_others_every", _OBSERVE_EVERY)
    options = fill(_core.GuardOptions(), chosen)
    adaptive = options.adaptive_clip > 0 or any(rule.adaptive_clip for rule in options.group_rules)
    return options, adaptive or options.observe_others_every > 0 or options.audit_every > 0
