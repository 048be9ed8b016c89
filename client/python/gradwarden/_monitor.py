"""Everything of a step that only tells people: history, log, mirrors. Nothing here raises into the training loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch

from . import _core
from ._core import StepOutcome
from ._history import History
from ._mirror import Mirror

log = logging.getLogger("gradwarden")

_MOST_TENSORS = 4  # named in one line of the log


class Monitor:
    def __init__(self, rank: int, history_length: int) -> None:
        self.history = History(history_length)
        self.mirrors: list[Mirror] = []
        self._rank = rank
        self._said: set[str] = set()

    def note(self, outcome: StepOutcome) -> None:
        try:
            self.history.add(outcome)
            level, event = event_of(outcome)
            # All ranks decide alike: one of them says so, and the others what they alone hold.
            if event and (self._rank == 0 or outcome.non_finite):
                log.log(level, "%s", event)
        except Exception as error:
            self.once("the step was not noted", error)
            return
        for mirror in self.mirrors:
            try:
                mirror.add(outcome, event)
            except Exception as error:
                self.once("a mirror failed, and has gaps from here on", error)

    def number(self, value: Any) -> float | None:
        """A loss or learning rate. None for one that is not in host memory, as reading it would wait for its device, or is no number."""
        if value is None or isinstance(value, float):
            return value
        if (known := _core.scalar(value)) is not None:
            return known
        try:
            if isinstance(value, torch.Tensor):
                return float(value.item()) if value.device.type == "cpu" else None
            return float(value)
        except Exception as error:
            self.once("a loss or learning rate that is no single number is not reported", error)
            return None

    def words(self, batch_ids: Any) -> list[str]:
        """The ids of the batches of a step: one, or several of anything that has a text."""
        if batch_ids is None or (isinstance(batch_ids, tuple) and not batch_ids):
            return []
        try:
            if isinstance(batch_ids, torch.Tensor):
                batch_ids = batch_ids.flatten().tolist() if batch_ids.device.type == "cpu" else []
            if isinstance(batch_ids, (str, bytes)) or not isinstance(batch_ids, Iterable):
                batch_ids = (batch_ids,)
            return [batch if isinstance(batch, str) else str(batch) for batch in batch_ids]
        except Exception as error:
            self.once("batch_ids that have no text are not reported", error)
            return []

    def once(self, what: str, error: object = None) -> None:
        """Warns, the first time."""
        if what in self._said:
            return
        self._said.add(what)
        try:
            log.warning("%s", what if error is None else f"{what} ({type(error).__name__}: {error})")
        except Exception:  # of a handler that the trainer installed: there is nobody left to tell
            pass


def event_of(outcome: StepOutcome) -> tuple[int, str]:
    """What there is to say about a step, and how loudly; an empty text for most."""
    reason = outcome.reason
    if outcome.decision in ("apply", "clip") and reason != "skip_limit" and not outcome.nan_count + outcome.inf_count:
        return logging.DEBUG, ""
    what = f"step {outcome.step}: {_done(outcome)}, {reason}"
    if outcome.nan_count + outcome.inf_count:
        what += f": {outcome.nan_count} NaN, {outcome.inf_count} Inf{_where(outcome)}"
    elif reason != "collective_failed":
        what += f": grad norm {outcome.grad_norm:.6g}"
        if outcome.threshold > 0:
            what += f", limit {outcome.threshold:.6g}"
    if outcome.stop_requested:
        return logging.ERROR, what + "; the bound on consecutive skips is used up, training should stop"
    level = logging.INFO if reason == "loss_scale_overflow" else logging.WARNING
    return level, what


def _done(outcome: StepOutcome) -> str:
    if outcome.decision == "reduce":
        return f"learning rate x {outcome.learning_rate_factor:.4g}"
    if outcome.decision == "skip":
        return "would be skipped" if outcome.shadow else "skipped"
    return "applied"


def _where(outcome: StepOutcome) -> str:
    found = [
        f"{one.tensor} (rank {one.rank}{', before the reduction' if one.local else ''}, first at element {one.index})"
        for one in outcome.non_finite[:_MOST_TENSORS]
    ]
    if len(outcome.non_finite) > _MOST_TENSORS:
        found.append(f"{len(outcome.non_finite) - _MOST_TENSORS} more")
    return " in " + ", ".join(found) if found else ""
