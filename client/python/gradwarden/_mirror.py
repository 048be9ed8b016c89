"""Copies of the guard's scalars and events for the place where people already look: TensorBoard, W&B, MLflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._core import Error, StepOutcome

Write = Callable[[dict[str, float], str, int], None]

_PREFIX = "gradwarden/"


class Mirror:
    """One of them: the scalars of every `every`-th step, and each event. What the writer raises is the caller's to catch."""

    def __init__(self, writer: Any, every: int = 1) -> None:
        if not isinstance(every, int) or every < 1:
            raise Error(f"mirror: every is {every!r}; allowed: a number of steps, 1 or more")
        self._write = _write_of(writer)
        self._every = every
        self._steps = 0

    def add(self, outcome: StepOutcome, event: str) -> None:
        """`event`: a text if something happened in this step, else empty."""
        due = self._steps % self._every == 0
        self._steps += 1
        if due or event:
            self._write(_scalars_of(outcome), event, outcome.step)


def _scalars_of(outcome: StepOutcome) -> dict[str, float]:
    scalars = {
        "grad_norm": outcome.grad_norm,
        "clip_coefficient": outcome.clip_coefficient,
        "skipped": float(outcome.decision == "skip"),
    }
    if outcome.threshold > 0:
        scalars["threshold"] = outcome.threshold
    if outcome.learning_rate_factor != 1:
        scalars["learning_rate_factor"] = outcome.learning_rate_factor
    return {_PREFIX + name: value for name, value in scalars.items()}


def _write_of(writer: Any) -> Write:
    """By what the writer can do, so that none of these packages is needed here."""
    for method, make in (("add_scalar", _tensorboard), ("log_metrics", _mlflow), ("log", _wandb)):
        if callable(getattr(writer, method, None)):
            return make(writer)
    raise Error(
        f"mirror: the writer is a {type(writer).__name__}; allowed: a TensorBoard SummaryWriter, a W&B run, the module "
        "mlflow, or what has their add_scalar(), log() or log_metrics()"
    )


def _tensorboard(writer: Any) -> Write:
    def write(scalars: dict[str, float], event: str, step: int) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        if event:
            writer.add_text(_PREFIX + "event", event, step)

    return write


def _mlflow(writer: Any) -> Write:
    def write(scalars: dict[str, float], event: str, step: int) -> None:
        writer.log_metrics(scalars, step=step)
        if event and hasattr(writer, "set_tag"):
            writer.set_tag("gradwarden.last_event", event)

    return write


def _wandb(run: Any) -> Write:
    # W&B drops rows whose step is behind its own, so that a step of ours could cost the trainer's rows. Without one, and
    # not committed, the values join the row that the trainer logs next.
    def write(scalars: dict[str, float], event: str, step: int) -> None:
        row: dict[str, Any] = {**scalars, _PREFIX + "step": step}
        if event:
            row[_PREFIX + "event"] = event
        run.log(row, commit=False)

    return write
