"""For trainers that step the optimizer themselves: the guard in the place of that step.

Those call optimizer.step() wherever they want, and none has a way to leave one step out. So the callbacks put the guard's
step under that very name, on the one optimizer object; the guard then calls the step that was there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


class Intercepted:
    """`act(original, loss)` runs in place of `optimizer.step(closure)`, after the closure, whose result is `loss`."""

    def __init__(self, optimizer: Any, act: Callable[[Callable[..., Any], Any], Any]) -> None:
        self._optimizer, self._act = optimizer, act
        self._original = optimizer.step
        self._had_own = "step" in vars(optimizer)  # a learning rate scheduler puts one there, too
        self._inside = False
        # With what others keep on the function, such as a scheduler's mark that it counts the calls.
        self._put = functools.wraps(self._original)(lambda *args, **kwargs: self._step(*args, **kwargs))
        optimizer.step = self._put

    def _step(self, closure: Callable[[], Any] | None = None, *arguments: Any, **keywords: Any) -> Any:
        if self._inside:  # the guard's own call
            return self._original(*arguments, **keywords) if closure is None else self._original(closure, *arguments, **keywords)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._inside = True
        try:
            self._act(functools.partial(self._original, *arguments, **keywords), loss)
        finally:
            self._inside = False
        return loss

    def undo(self) -> None:
        """Unless somebody put another step over this one."""
        if vars(self._optimizer).get("step") is not self._put:
            return
        if self._had_own:
            self._optimizer.step = self._original
        else:
            del self._optimizer.step
