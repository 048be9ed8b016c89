"""The optimizers that a guard steps: all of them, or none."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Union

import torch

from . import _core
from ._core import Error, StepOutcome

Given = Union[torch.optim.Optimizer, Iterable[torch.optim.Optimizer], None]


class Optimizers:
    """Raises Error on what is no optimizer. A fused one divides the gradients itself and is told by `found_inf` of a skip."""

    def __init__(self, given: Given) -> None:
        listed: list[Any] = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
        for one in listed:
            if not (callable(getattr(one, "step", None)) and hasattr(one, "param_groups")):
                raise Error(
                    f"guard: optimizer is a {type(one).__name__}; allowed: an optimizer of torch, a list of them, or None"
                )
            if needed := _needed_by(one.step):
                raise Error(f"guard: {type(one).__name__}.step() needs {needed}; allowed: optimizers whose step() needs nothing")
        if len({id(one) for one in listed}) != len(listed):
            raise Error("guard: one optimizer is listed twice")
        self.all = listed
        self._fused = [_takes_scale(one) for one in listed]
        self._lists: list[list[torch.Tensor]] = []
        self.scale_gradients = bool(listed) and all(self._fused)

    def have_changed(self) -> bool:
        """Whether they step other parameters than at the last call."""
        lists = [group["params"] for one in self.all for group in one.param_groups]
        if len(lists) == len(self._lists) and all(map(_core.same_objects, lists, self._lists)):
            return False
        self._lists = [list(parameters) for parameters in lists]
        return True

    def parameters(self) -> Iterator[torch.Tensor]:
        return (parameter for one in self.all for group in one.param_groups for parameter in group["params"])

    def learning_rate(self) -> Any:
        """Of the first group, a float or a tensor; None where there is none."""
        for one in self.all:
            for group in one.param_groups:
                return group.get("lr")
        return None

    def step(self, update: bool, outcome: StepOutcome) -> None:
        if update and outcome.learning_rate_factor != 1.0:
            with self._reduced(outcome.learning_rate_factor):
                self._step_all(update, outcome.grad_scale)
        else:
            self._step_all(update, outcome.grad_scale)

    def _step_all(self, update: bool, scale: float) -> None:
        for one, fused in zip(self.all, self._fused):
            if fused and not (update and scale == 1.0):
                with _told(one, update, scale):
                    one.step()
            elif update:
                one.step()

    def step_on_device(self, found_inf: torch.Tensor, grad_scale: torch.Tensor) -> None:
        """Fused ones, told of the decision by tensors on their device, which nobody reads here."""
        for one in self.all:
            given = getattr(one, "grad_scale", None)
            one.grad_scale = grad_scale if given is None else given * grad_scale
            one.found_inf = found_inf
            try:
                one.step()
            finally:
                del one.found_inf
                if given is None:
                    del one.grad_scale
                else:
                    one.grad_scale = given

    @contextlib.contextmanager
    def _reduced(self, factor: float) -> Iterator[None]:
        """With the learning rates of all groups multiplied by `factor`."""
        groups = [group for one in self.all for group in one.param_groups if "lr" in group]
        rates = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, rates):
                group["lr"] = rate * factor
            yield
        finally:
            for group, rate in zip(groups, rates):
                group["lr"] = rate


def _needed_by(step: Any) -> str:
    """The first argument that it cannot do without, for example LBFGS's closure."""
    try:
        # A schedule of learning rates wraps the bound step, and its signature then still has self.
        parameters = [p for p in inspect.signature(step).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return ""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return next((p.name for p in parameters if p.default is p.empty and p.kind not in optional), "")


def _takes_scale(optimizer: Any) -> bool:
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    # An older contract, in which the optimizer asks the scaler itself.
    return "grad_scaler" not in inspect.signature(optimizer.step).parameters


@contextlib.contextmanager
def _told(optimizer: Any, update: bool, scale: float) -> Iterator[None]:
    """With the attributes that torch's fused optimizers read; a grad_scale of the caller's own is taken into account."""
    given = getattr(optimizer, "grad_scale", None)
    optimizer.grad_scale = torch.tensor(scale) if given is None else given * scale
    optimizer.found_inf = torch.tensor(0.0 if update else 1.0)
    try:
        yield
    finally:
        del optimizer.found_inf
        if given is None:
            del optimizer.grad_scale
        else:
            optimizer.grad_scale = given
