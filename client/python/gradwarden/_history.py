"""The last steps of a guard, as arrays."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ._core import Error, StepOutcome

if TYPE_CHECKING:
    import numpy

_NUMBERS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "clip_coefficient",
    "learning_rate_factor",
    "threshold",
    "rolling_mean",
    "clip_threshold",
    "max_abs",
)
_WORDS = ("decision", "reason")


class History:
    """Holds the newest `length` outcomes."""

    def __init__(self, length: int) -> None:
        if not isinstance(length, int) or length < 0:
            raise Error(f"guard: history_length is {length!r}; allowed: a number of steps, 0 or more")
        self._outcomes: deque[StepOutcome] = deque(maxlen=length)

    def add(self, outcome: StepOutcome) -> None:
        self._outcomes.append(outcome)

    def arrays(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """By name, the oldest step first. NaN: not known, or not finite."""
        try:
            import numpy
        except ImportError as error:
            raise Error("guard.history needs numpy; install it") from error
        outcomes = list(self._outcomes)
        arrays = {"step": numpy.array([outcome.step for outcome in outcomes], dtype=numpy.int64)}
        for name in _NUMBERS:
            values = (getattr(outcome, name) for outcome in outcomes)
            arrays[name] = numpy.array([float("nan") if value is None else value for value in values], dtype=float)
        for name in _WORDS:
            arrays[name] = numpy.array([getattr(outcome, name) for outcome in outcomes], dtype=str)
        arrays["should_update"] = numpy.array([outcome.should_update for outcome in outcomes], dtype=bool)
        return arrays
