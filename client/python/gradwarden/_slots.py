"""Where the guard reads each gradient: one fixed piece of memory per tensor, from one bind to the next.

PyTorch may give a gradient new memory in every step (zero_grad() drops the old one). Agreeing on new addresses with the
other ranks would cost an exchange, so a gradient that moved is copied back to its slot instead, and .grad is set to it.
"""

import torch

from . import _core
from ._core import Error

_DTYPES = {
    torch.float64: _core.DType.FLOAT64,
    torch.float32: _core.DType.FLOAT32,
    torch.bfloat16: _core.DType.BFLOAT16,
    torch.float16: _core.DType.FLOAT16,
}


def problem_of(name, tensor):
    """Why the guard cannot read this tensor; empty if it can."""
    if tensor.layout != torch.strided:
        return f"tensor {name!r} is sparse ({tensor.layout}); allowed: dense gradients"
    if tensor.device.type != "cpu":
        return f"tensor {name!r} is on {tensor.device}; allowed: cpu"
    if tensor.dtype not in _DTYPES:
        return f"tensor {name!r} is {tensor.dtype}; allowed: {', '.join(str(dtype) for dtype in _DTYPES)}"
    if not tensor.is_contiguous():
        return f"tensor {name!r} is not contiguous (strides {tensor.stride()}); call .contiguous() on it"
    return ""


class Slot:
    """One parameter and the memory in which its gradient is read and scaled. Keeps that memory alive."""

    def __init__(self, name, parameter, view=None):
        self.name = name
        self.parameter = parameter
        self.in_bucket = view is not None
        gradient = parameter.grad if view is None else view
        # Without a gradient (not used, or no backward yet) it counts as zeros; .grad stays None.
        self.memory = torch.zeros_like(parameter, requires_grad=False) if gradient is None else gradient.detach()
        self.problem = problem_of(name, self.memory)

    def shard(self):
        group = self.name.rpartition(".")[0] or self.name
        return _core.TensorShard(
            self.name, group, self.memory.data_ptr(), self.memory.numel(), _DTYPES[self.memory.dtype]
        )

    @torch.no_grad()
    def settle(self):
        """Brings the gradient back to the slot if it is elsewhere."""
        gradient = self.parameter.grad
        if gradient is None:
            self.memory.zero_()
            return
        # Most often this is all; a sparse one has no address.
        if gradient.layout == torch.strided and gradient.data_ptr() == self.memory.data_ptr():
            if gradient.is_contiguous() and gradient.dtype == self.memory.dtype:
                return
        problem = problem_of(self.name, gradient)
        if not problem and (gradient.dtype != self.memory.dtype or gradient.shape != self.memory.shape):
            problem = f"tensor {self.name!r} changed its dtype or shape; call bind() again, on every rank"
        if problem:
            raise Error(problem)
        self.memory.copy_(gradient)
        self.parameter.grad = self.memory
