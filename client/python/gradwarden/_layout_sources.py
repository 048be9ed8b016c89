"""One parameter as the guard reads it, and the parts of whole tensors that lie in its local memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from ._core import Error


@dataclasses.dataclass(frozen=True)
class Piece:
    """`count` elements of the local memory from `first` on.

    Without a shape they are elements [offset, offset + count) of a tensor of `total` elements. With one they are the
    elements [offset, offset + count), in row-major order, of the box [start, start + extent) of a tensor of that shape.
    """

    path: str  # of the whole tensor in the model
    first: int
    count: int
    total: int
    offset: int = 0
    shape: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    extent: tuple[int, ...] = ()
    suffix: str = ""  # that tells apart what only has the same path

    @property
    def name(self) -> str:
        return self.path + self.suffix


class Source:
    """`pieces` lie in the memory of a gradient whose local part has `local_shape`."""

    def __init__(self, name: str, parameter: torch.Tensor, local_shape: Sequence[int]) -> None:
        self.name = name
        self.parameter = parameter
        self.local_shape = torch.Size(local_shape)
        self.pieces: list[Piece] = []

    def holding(self, *, whole: str, count: int, total: int, first: int = 0, offset: int = 0) -> None:
        self.pieces.append(Piece(whole, first, count, total, offset))

    def holding_box(
        self,
        whole: str,
        shape: tuple[int, ...],
        start: tuple[int, ...],
        extent: tuple[int, ...],
        *,
        first: int = 0,
        offset: int = 0,
        count: int | None = None,
    ) -> None:
        count = math.prod(extent) if count is None else count
        self.pieces.append(Piece(whole, first, count, math.prod(shape), offset, shape, start, extent))

    def held(self, piece: Piece) -> object:
        """What has the piece's gradient as its .grad, one-dimensional or as it is; None where there is none."""
        return Held(self, piece)

    @torch.no_grad()
    def gradient(self) -> torch.Tensor | None:
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

    def local(self, gradient: torch.Tensor) -> torch.Tensor:
        """The local part of a gradient, dense in memory, or sparse, which the caller refuses."""
        gradient = gradient.detach()
        if gradient.layout != torch.strided or is_dense(gradient):
            return gradient
        self.parameter.grad = gradient.contiguous()
        return self.parameter.grad

    @torch.no_grad()
    def local_parameter(self) -> torch.Tensor:
        """The parameter's own memory on this rank, which stays where it is, laid out as its gradient's. Raises Error."""
        local = self.parameter.detach()
        if local.numel() != self.local_shape.numel() or not is_dense(local):
            raise Error(f"parameter {self.name!r} is not laid out as its gradient; leave out what reads parameters")
        return local

    def unexpected(self, local: torch.Tensor) -> str:
        return (
            f"the gradient of {self.name!r} has shape {tuple(local.shape)}; expected here: {tuple(self.local_shape)}. Call "
            "bind() again, on every rank, if the model changed"
        )


class Held:
    """One piece of a source, as the core asks for it in every step."""

    __slots__ = ("source", "piece")

    def __init__(self, source: Source, piece: Piece) -> None:
        self.source = source
        self.piece = piece

    @property
    def grad(self) -> torch.Tensor | None:
        gradient = self.source.gradient()
        return gradient if gradient is None else part_of(gradient, self.piece)


def part_of(local: torch.Tensor, piece: Piece) -> torch.Tensor:
    """The piece's memory in a dense tensor that holds it."""
    if local.layout != torch.strided or local.numel() == piece.count:
        return local
    return flat(local)[piece.first : piece.first + piece.count]


def flat(dense: torch.Tensor) -> torch.Tensor:
    """Its elements in the order in which they lie in memory."""
    return dense.as_strided((dense.numel(),), (1,))


class WholeSource(Source):
    """A tensor that is whole on this rank."""

    def __init__(self, name: str, parameter: torch.Tensor) -> None:
        super().__init__(name, parameter, parameter.shape)
        self.holding(whole=name, count=parameter.numel(), total=parameter.numel())

    def held(self, piece: Piece) -> object:
        return self.parameter

    def local_parameter(self) -> torch.Tensor:
        return self.parameter  # itself: it may be given other memory


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether its elements fill a stretch of memory, in whatever order of dimensions."""
    if tensor.is_contiguous():
        return True
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda d: -strides[d])).is_contiguous()
