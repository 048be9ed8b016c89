"""Where the gradient of a parameter is, and how it is described to the core.

PyTorch may give a gradient new memory in every step (zero_grad() drops the old one), so that nothing here holds on to
it: a slot describes it when the guard binds, and the core looks up its address in every step.
"""

from __future__ import annotations

import torch

from . import _core

_DTYPES = {
    torch.float64: _core.DType.FLOAT64,
    torch.float32: _core.DType.FLOAT32,
    torch.bfloat16: _core.DType.BFLOAT16,
    torch.float16: _core.DType.FLOAT16,
}


def problem_of(name: str, tensor: torch.Tensor) -> str:
    """Why the guard cannot read this tensor; empty if it can."""
    if tensor.layout != torch.strided:
        return f"tensor {name!r} is sparse ({tensor.layout}); allowed: dense gradients"
    if tensor.device.type != "cpu":
        return f"tensor {name!r} is on {tensor.device}; allowed: cpu"
    if tensor.dtype not in _DTYPES:
        return f"tensor {name!r} is {tensor.dtype}; allowed: {', '.join(str(dtype) for dtype in _DTYPES)}"
    return ""


class Slot:
    """One parameter, and at bind the memory of its gradient.

    `source` is what the core asks in every step: its .grad is the gradient's memory on this rank, or None.
    """

    def __init__(self, name: str, parameter: torch.Tensor, group: str, view: torch.Tensor | None = None) -> None:
        """`view`: the memory in which this rank's own gradient is before the reduction, if it is not that of .grad."""
        self.name = name
        self.group = group
        self.parameter = parameter
        self.source: object = parameter
        self.in_bucket = view is not None
        gradient = parameter.grad
        # Without a gradient (not used, or no backward pass yet) it counts as zeros; .grad stays None.
        self.memory = torch.empty_like(parameter, requires_grad=False) if gradient is None else gradient.detach()
        self._view = view
        self.problem = problem_of(name, self.memory)

    def shard(self) -> _core.TensorShard:
        return self._described(self.memory)

    def local_shard(self) -> _core.TensorShard:
        return self._described(self.memory if self._view is None else self._view)

    def parameter_shard(self) -> _core.TensorShard:
        return self._described(self.parameter)

    def _described(self, memory: torch.Tensor) -> _core.TensorShard:
        return _core.TensorShard(self.name, self.group, memory.data_ptr(), memory.numel(), _DTYPES[memory.dtype])

    def forget(self) -> None:
        """After bind: the memory is the trainer's again."""
        self.memory = torch.empty(0)
        self._view = None

    def mend(self) -> bool:
        """Gives a gradient that lies scattered in memory one stretch of it. False if that is not what is wrong."""
        gradient = self.parameter.grad
        if gradient is None or problem_of(self.name, gradient) or gradient.is_contiguous():
            return False
        with torch.no_grad():
            self.parameter.grad = gradient.contiguous()
        return True
