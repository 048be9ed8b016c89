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
    """Raises Error on what is no optimizer. A fused one divides the gradients itself; on a skip none is called.

    Where the decision stays on the device, fused ones are called in any case, and told of a skip by `found_inf`.
    """

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

    @property
    def scale_gradients(self) -> bool:
        """Whether they divide the gradients; asked in each step, as load_state_dict() may make another of a fused one."""
        return bool(self.all) and all(fused and _is_fused(one) for one, fused in zip(self.all, self._fused))

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

    def must_not_begin_with_a_skip(self) -> bool:
        """A fused SGD whose first step is skipped on the device takes uninitialised memory for its momentum."""
        return any(fused and _makes_momentum(one) for one, fused in zip(self.all, self._fused))

    def step(self, update: bool, outcome: StepOutcome) -> None:
        # A fused one could be told of the skip, but in its first step it makes state nevertheless: see _makes_momentum().
        if not update:
            return
        if outcome.learning_rate_factor != 1.0:
            with self._reduced(outcome.learning_rate_factor):
                self._step_all(outcome.grad_scale)
        else:
            self._step_all(outcome.grad_scale)

    def _step_all(self, scale: float) -> None:
        for one in self.all:
            if scale == 1.0:
                one.step()
            else:  # all divide: scale_gradients
                with _told(one, torch.zeros((), dtype=torch.float32), _as_float32(scale)):
                    one.step()

    def step_on_device(self, found_inf: torch.Tensor, grad_scale: torch.Tensor) -> None:
        """Fused ones, told of the decision by tensors on their device, which nobody reads here."""
        for one in self.all:
            with _told(one, found_inf, grad_scale):
                one.step()

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


def _as_float32(scale: float) -> torch.Tensor:
    """As fused optimizers take it, whatever torch's default is; too large a one saturates, as dividing by Inf gives zeros."""
    return torch.tensor(min(scale, torch.finfo(torch.float32).max), dtype=torch.float32)


def _takes_scale(optimizer: Any) -> bool:
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    # An older contract, in which the optimizer asks the scaler itself.
    return "grad_scaler" not in inspect.signature(optimizer.step).parameters


def _is_fused(optimizer: Any) -> bool:
    """Now: the groups of a state that it loaded may say otherwise, while its mark of one that takes a scale stays."""
    return all(group.get("fused", True) for group in optimizer.param_groups)


def _makes_momentum(optimizer: Any) -> bool:
    """Whether its coming step makes momentum as torch's fused SGD does: empty, and left so if `found_inf` says to skip."""
    return isinstance(optimizer, torch.optim.SGD) and any(
        p.grad is not None and optimizer.state.get(p, {}).get("momentum_buffer") is None
        for group in optimizer.param_groups
        if group["momentum"] != 0
        for p in group["params"]
    )


@contextlib.contextmanager
def _told(optimizer: Any, found_inf: torch.Tensor, grad_scale: torch.Tensor) -> Iterator[None]:
    """With the attributes that torch's fused optimizers read; those of the caller's own are taken into account, and stay."""
    given = {name: getattr(optimizer, name, None) for name in ("found_inf", "grad_scale")}
    found, scale = given["found_inf"], given["grad_scale"]
    optimizer.found_inf = found_inf if found is None else torch.maximum(found, found_inf)
    optimizer.grad_scale = grad_scale if scale is None else scale * grad_scale
    try:
        yield
    finally:
        for name, value in given.items():
            if value is None:
                delattr(optimizer, name)
            else:
                setattr(optimizer, name, value)
