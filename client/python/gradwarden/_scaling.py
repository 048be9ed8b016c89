"""The loss scale of a step: a number, or a torch.amp.GradScaler, whose part in the step the guard then plays.

GradScaler.step() unscales, looks for non-finite gradients and steps the optimizer. The guard does all three, in its own
pass over the gradients, and leaves behind in the scaler what update() wants: whether one was found. A spike that the guard
skips is not found there, so the scale goes on as if the step had been taken. This is written against the scaler's inner
state, as GradScaler has no interface for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.amp.grad_scaler import OptState

from ._core import Error, StepOutcome
from ._optimizers import Optimizers


class LossScale:
    """Of one step. None: the gradients are not scaled."""

    def __init__(self, value: float | None = None) -> None:
        self.value = value
        self.unscaled = False  # the gradients were divided by it before

    def allows(self, outcome: StepOutcome) -> bool:
        return outcome.should_update

    def finish(self, outcome: StepOutcome) -> None:
        """After the optimizers' steps."""


class Scaled(LossScale):
    def __init__(self, scaler: Any, optimizers: Optimizers) -> None:
        super().__init__()
        self._scaler = scaler
        if not optimizers.all:
            raise Error("guard: scaler needs the optimizer that the guard steps: Guard(model, optimizer)")
        if scaler._scale is None:
            raise Error("guard: the scaler has no scale yet; call scaler.scale(loss).backward() first")
        states = [scaler._per_optimizer_states[id(one)] for one in optimizers.all]
        if any(state["stage"] is OptState.STEPPED for state in states):
            raise Error("guard: step() was already called since the last scaler.update(); call that after each step")
        self.unscaled = any(state["stage"] is OptState.UNSCALED for state in states)
        if self.unscaled:  # by the caller; then all of them
            for one, state in zip(optimizers.all, states):
                if state["stage"] is OptState.READY:
                    scaler.unscale_(one)
        self._states = states
        self.value = scaler.get_scale()

    def allows(self, outcome: StepOutcome) -> bool:
        """As the scaler, which steps no optimizer on non-finite gradients, whatever the guard was told to let through."""
        return outcome.should_update and not self._found(outcome)

    def finish(self, outcome: StepOutcome) -> None:
        device = self._scaler._scale.device
        for state in self._states:
            found = torch.full((), float(self._found(outcome)), dtype=torch.float32, device=device)
            state["found_inf_per_device"] = {device: found}
            state["stage"] = OptState.STEPPED

    @staticmethod
    def _found(outcome: StepOutcome) -> bool:
        return outcome.nan_count + outcome.inf_count != 0


def loss_scale_of(scaler: Any, value: float | None, optimizers: Optimizers) -> LossScale:
    """Raises Error where the step must not begin."""
    if scaler is None:
        return LossScale(value)
    if value is not None:
        raise Error("guard: step() has both a scaler and a loss_scale; allowed: one of them")
    if not isinstance(scaler, torch.amp.GradScaler):
        raise Error(f"guard: scaler is a {type(scaler).__name__}; allowed: a torch.amp.GradScaler")
    return Scaled(scaler, optimizers) if scaler.is_enabled() else LossScale()
