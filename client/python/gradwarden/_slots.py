"""Where a piece of a gradient is, and how it is described to the core.

PyTorch may give a gradient new memory in every step (zero_grad() drops the old one), so that nothing here holds on to
it: a slot describes it when the guard binds, and the core looks up its address in every step. Which part of a whole tensor
it is, _layout.py finds out.
"""

from __future__ import annotations

import torch

from . import _core
from ._core import Error
from ._layout_sources import Piece, Source, part_of

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
    if tensor.device.type == "meta":
        return f"tensor {name!r} is on {tensor.device}; allowed: a device with memory"
    if tensor.dtype not in _DTYPES:
        return f"tensor {name!r} is {tensor.dtype}; allowed: {', '.join(str(dtype) for dtype in _DTYPES)}"
    return ""


class Slot:
    """One piece of a parameter, and at bind the memory of its gradient.

    `source` is what the core asks in every step: its .grad is the gradient's memory on this rank, or None.
    """

    def __init__(self, source: Source, piece: Piece, group: str, view: torch.Tensor | None = None) -> None:
        """`view`: the memory in which this rank's own gradient is before the reduction, if it is not that of .grad."""
        self.name = piece.name
        self.group = group
        self.parameter = source.parameter
        self.parameter_name = source.name
        self.piece = piece
        self.source = source.held(piece)
        self.in_bucket = view is not None
        self.problem = ""
        self._whole = source
        self._view = view
        try:
            gradient: torch.Tensor | None = self.source.grad  # type: ignore[attr-defined]
        except Error as error:
            gradient, self.problem = None, str(error)
        if gradient is None:
            # Not used, or no backward pass yet: it counts as zeros; .grad stays None.
            gradient = torch.empty(piece.count, dtype=self.parameter.dtype, device=self.parameter.device)
        self.memory = gradient.detach()
        self.problem = self.problem or problem_of(self.name, self.memory)
        self.dtype = self.memory.dtype

    def shard(self) -> _core.TensorShard:
        return self._described(self.memory)

    def local_shard(self) -> _core.TensorShard:
        return self._described(self.memory if self._view is None else self._view)

    def held_parameter(self) -> torch.Tensor:
        """The parameter's own memory of this piece. Raises Error."""
        local = self._whole.local_parameter()
        return local if local is self.parameter else part_of(local, self.piece)

    def parameter_shard(self, held: torch.Tensor) -> _core.TensorShard:
        return self._described(held)

    def _described(self, memory: torch.Tensor) -> _core.TensorShard:
        piece = self.piece
        return _core.TensorShard(
            self.name,
            self.group,
            memory.data_ptr(),
            piece.count,
            _DTYPES[memory.dtype],
            total_count=piece.total,
            offset=piece.offset,
            shape=piece.shape,
            start=piece.start,
            extent=piece.extent,
        )

    def forget(self) -> None:
        """After bind: the memory is the trainer's again."""
        self.memory = torch.empty(0)
        self._view = None

    def mend(self) -> bool:
        """Gives a gradient that lies scattered in memory one stretch of it. False if that is not what is wrong."""
        gradient = self.parameter.grad
        if self.source is not self.parameter or gradient is None or problem_of(self.name, gradient):
            return False
        if gradient.is_contiguous():
            return False
        with torch.no_grad():
            self.parameter.grad = gradient.contiguous()
        return True
