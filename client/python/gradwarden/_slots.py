"""Where the guard reads each gradient: one fixed piece of memory per tensor, from one bind to the next.

PyTorch may give a gradient new memory in every step (zero_grad() drops the old one). Agreeing on new addresses with the
other ranks would cost an exchange, so a gradient that moved is copied back to its slot instead, and .grad is set to it.
Which part of a whole tensor lies there is for _layout.py to say.
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
    return ""


class Slot:
    """One parameter and the memory in which its gradient is read and scaled. Keeps that memory alive."""

    def __init__(self, source, view=None):
        self.source = source
        self.name = source.name
        self.parameter = source.parameter
        self.in_bucket = view is not None
        self.problem = ""
        try:
            gradient = source.gradient() if view is None else view.detach()
        except Error as error:
            gradient, self.problem = None, str(error)
        # Without a gradient (not used, or no backward yet) it counts as zeros; .grad stays None.
        self.memory = source.zeros(self.parameter.dtype, self.parameter.device) if gradient is None else gradient
        self.problem = self.problem or problem_of(self.name, self.memory)

    def shards(self):
        """What lies in the memory: most often one tensor or a part of it; none where this rank holds nothing."""
        address, size = self.memory.data_ptr(), self.memory.element_size()
        return [
            _core.TensorShard(
                piece.name,
                group_of(piece.name),
                address + piece.first * size,
                piece.count,
                _DTYPES[self.memory.dtype],
                total_count=piece.total,
                offset=piece.offset,
                shape=piece.shape,
                start=piece.start,
                extent=piece.extent,
            )
            for piece in self.source.pieces
        ]

    @torch.no_grad()
    def settle(self):
        """Brings the gradient back to the slot if it is elsewhere."""
        gradient = self.source.gradient()
        if gradient is None:
            self.memory.zero_()
            return
        # Most often this is all; a sparse one has no address.
        if gradient.layout == torch.strided and gradient.data_ptr() == self.memory.data_ptr():
            if gradient.dtype == self.memory.dtype:
                return
        problem = problem_of(self.name, gradient)
        if not problem and gradient.dtype != self.memory.dtype:
            problem = f"tensor {self.name!r} changed its dtype; call bind() again, on every rank"
        if problem:
            raise Error(problem)
        self.memory.copy_(gradient.reshape(self.memory.shape))
        self.source.replace(self.memory)


def group_of(name):
    return name.rpartition(".")[0] or name
