"""One parameter as the guard reads it, and the parts of whole tensors that lie in its local memory."""

import dataclasses

import torch

from ._core import Error


@dataclasses.dataclass(frozen=True)
class Piece:
    """`count` elements of the local memory from `first` on.

    Without a shape they are elements [offset, offset + count) of a tensor of `total` elements. With one they are the
    elements [offset, offset + count), in row-major order, of the box [start, start + extent) of a tensor of that shape.
    """

    name: str  # of the whole tensor
    first: int
    count: int
    total: int
    offset: int = 0
    shape: tuple = ()
    start: tuple = ()
    extent: tuple = ()


class Source:
    """`pieces` lie in the memory of a gradient whose local part has `local_shape`."""

    def __init__(self, name, parameter, local_shape):
        self.name = name
        self.parameter = parameter
        self.local_shape = torch.Size(local_shape)
        self.pieces = []

    def holding(self, *, whole, count, total, first=0, offset=0):
        if count:
            self.pieces.append(Piece(whole, first, count, total, offset))
        return self

    def holding_box(self, whole, shape, start, extent, *, first=0, offset=0, count=None):
        count = _product(extent) if count is None else count
        if count:
            self.pieces.append(Piece(whole, first, count, _product(shape), offset, shape, start, extent))
        return self

    def rename(self, new_name):
        """`new_name`: from the name of a whole tensor to the one that it is bound under."""
        only = len(self.pieces) < 2 and (not self.pieces or self.pieces[0].name == self.name)
        self.pieces = [dataclasses.replace(piece, name=new_name(piece.name)) for piece in self.pieces]
        if only:
            self.name = new_name(self.name)

    @torch.no_grad()
    def gradient(self):
        """The memory of this rank's gradient; None if there is none.

        Where it cannot be read in place, .grad becomes one that can. Raises Error.
        """
        gradient = self.parameter.grad
        if gradient is None:
            return None
        local = self.local(gradient)
        if local.layout == torch.strided and local.numel() != self.local_shape.numel():
            raise Error(self.unexpected(local))
        return local

    def local(self, gradient):
        """The local part of a gradient, dense in memory, or sparse, which the caller refuses."""
        gradient = gradient.detach()
        if gradient.layout != torch.strided or is_dense(gradient):
            return gradient
        self.parameter.grad = gradient.contiguous()
        return self.parameter.grad

    def replace(self, memory):
        """.grad becomes this memory, which holds the same numbers."""
        self.parameter.grad = memory.view(self.parameter.grad.shape)

    def unexpected(self, local):
        return (
            f"the gradient of {self.name!r} has shape {tuple(local.shape)}; expected here: {tuple(self.local_shape)}. Call "
            "bind() again, on every rank, if the model changed"
        )

    def zeros(self, dtype, device):
        return torch.zeros(self.local_shape, dtype=dtype, device=device)


class WholeSource(Source):
    """A tensor that is whole on this rank."""

    def __init__(self, name, parameter):
        super().__init__(name, parameter, parameter.shape)
        self.holding(whole=name, count=parameter.numel(), total=parameter.numel())


def is_dense(tensor):
    """Whether its elements fill a stretch of memory, in whatever order of dimensions."""
    if tensor.is_contiguous():
        return True
    order = memory_order(tensor.stride())
    return tensor.permute(order).is_contiguous()


def memory_order(strides):
    """The dimensions, outermost first; row-major ones stay as they are."""
    return sorted(range(len(strides)), key=lambda d: -strides[d])


def _product(extents):
    result = 1
    for extent in extents:
        result *= extent
    return result
