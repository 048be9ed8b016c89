"""DTensor: FSDP2's fully_shard, tensor parallelism, hybrids of both, and what else is made of placements.

The layout follows from the placements alone, computed here, and is checked against the local tensor's shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ._core import Error
from ._layout_sources import Source

Stretches = list[tuple[int, int]]  # (begin, count), one after another
Box = tuple[tuple[int, ...], tuple[int, ...]]  # start and extent

try:
    from torch.distributed.tensor import DTensor, Shard
except ImportError:  # a torch without torch.distributed
    DTensor = Shard = None  # type: ignore[assignment, misc]

# A tensor that placements cut into more boxes than this on one rank is not worth describing.
_MOST_BOXES = 4096


def is_dtensor(tensor: object) -> bool:
    return DTensor is not None and isinstance(tensor, DTensor)


class DTensorSource(Source):
    """A gradient that is placed otherwise than its parameter is redistributed to the parameter's placements.

    So does the optimizer with it. A gradient that is still a sum over ranks (Partial), as tensor parallelism leaves that of
    a replicated parameter, is thereby reduced; .grad then holds the reduced one. This communicates, on all ranks of the
    mesh alike.
    """

    def __init__(self, name: str, parameter: Any) -> None:
        self._mesh, self._placements = parameter.device_mesh, parameter.placements
        with torch.no_grad():
            local = parameter.to_local()
        super().__init__(name, parameter, local.shape)
        if self._mesh.get_coordinate() is None:
            return
        runs = layout_of(name, parameter.shape, self._mesh, self._placements, local.shape)
        shape = tuple(parameter.shape)
        # One that is empty here is bound, too: to bring its gradient to these placements takes all ranks.
        nothing = (0,) * len(shape)
        first = 0
        for start, extent in boxes_of(name, runs) or [(nothing, nothing)]:
            self.holding_box(name, shape, start, extent, first=first)
            first += math.prod(extent)

    def gradient(self) -> torch.Tensor | None:
        gradient: Any = self.parameter.grad
        # Asked for every tensor in every step, so the way that most gradients go is short: to_local() would take longer.
        if type(gradient) is DTensor and gradient.placements == self._placements:
            local = getattr(gradient, "_local_tensor", None)
            if type(local) is torch.Tensor and local.is_contiguous() and local.shape == self.local_shape:
                return local
        return super().gradient()

    def local(self, gradient: Any) -> torch.Tensor:
        if not is_dtensor(gradient):
            raise Error(f"the gradient of {self.name!r} is a {type(gradient).__name__}; its parameter is a DTensor")
        if gradient.placements != self._placements:
            if gradient.device_mesh != self._mesh:
                raise Error(f"the gradient of {self.name!r} is on another mesh than its parameter")
            gradient = gradient.redistribute(placements=self._placements)
            self.parameter.grad = gradient
        local: torch.Tensor = gradient.to_local()
        if hasattr(local, "wait"):  # a collective may still be under way
            local = local.wait()
        if local.layout != torch.strided or local.is_contiguous():
            return local
        # Local parts are row-major, whatever the strides of the whole say; ranks could not agree on another order.
        local, whole = local.contiguous(), self.parameter
        whole.grad = DTensor.from_local(local, self._mesh, self._placements, shape=whole.shape, stride=whole.stride())
        return local

    def local_parameter(self) -> torch.Tensor:
        local: torch.Tensor = self.parameter.to_local().detach()  # type: ignore[attr-defined]
        if local.shape != self.local_shape or not local.is_contiguous():
            raise Error(f"parameter {self.name!r} is not laid out as its gradient; leave out what reads parameters")
        return local


def layout_of(
    name: str, shape: Sequence[int], mesh: Any, placements: Sequence[Any], local_shape: Sequence[int]
) -> list[Stretches]:
    """By dimension, the stretches (begin, count) of a tensor that the placements give to this rank, in order."""
    runs: list[Stretches] = [[(0, extent)] for extent in shape]
    right_to_left = _cut_right_to_left(placements, mesh.shape)
    for mesh_dim in sorted(range(len(placements)), key=lambda m: right_to_left and _is_strided(placements[m])):
        placement = placements[mesh_dim]
        if placement.is_replicate():
            continue
        factor = getattr(placement, "split_factor", None)
        if factor is None and type(placement) is not Shard:
            raise Error(f"tensor {name!r} is placed as {placement}, which is not known here; pass layout= for it")
        d = placement.dim
        pieces = 1 if factor is None or right_to_left else factor
        runs[d] = _chunk(runs[d], pieces, mesh.shape[mesh_dim], mesh.get_coordinate()[mesh_dim])
    here = tuple(sum(count for _, count in stretches) for stretches in runs)
    if math.prod(here) != math.prod(local_shape) or (0 not in here and here != tuple(local_shape)):
        raise Error(
            f"tensor {name!r}: by its placements {tuple(placements)} this rank has {here} of {tuple(shape)}, but the local "
            f"tensor is {tuple(local_shape)}; pass layout= for it"
        )
    return runs


def boxes_of(name: str, runs: list[Stretches]) -> list[Box]:
    """The boxes (start, extent) that lie in the local memory one after another."""
    cut = max((d for d, stretches in enumerate(runs) if len(stretches) > 1), default=0)
    starts: list[Box] = [((), ())]
    for d, stretches in enumerate(runs):
        if d < cut:  # one box per index, as a box of several would not be contiguous
            stretches = [(begin + i, 1) for begin, count in stretches for i in range(count)]
        starts = [((*start, begin), (*extent, count)) for start, extent in starts for begin, count in stretches]
        if len(starts) > _MOST_BOXES:
            raise Error(f"tensor {name!r}: its placements cut it into more than {_MOST_BOXES} pieces on one rank")
    return [box for box in starts if 0 not in box[1]]


def _is_strided(placement: Any) -> bool:
    return getattr(placement, "split_factor", None) is not None


def _cut_right_to_left(placements: Sequence[Any], mesh_shape: Sequence[int]) -> bool:
    """Whether strided placements stand for cuts that were made after those to their right, as fully_shard makes them.

    With even sizes both readings are the same.
    """
    strided = [m for m, placement in enumerate(placements) if _is_strided(placement)]
    for m in strided:
        dim = placements[m].dim
        others = [n for n, p in enumerate(placements) if n != m and not p.is_replicate() and p.dim == dim]
        right = 1
        for n in others:
            if n < m or _is_strided(placements[n]):
                return False
            right *= mesh_shape[n]
        if placements[m].split_factor != right:
            return False
    return bool(strided)


def _chunk(stretches: Stretches, pieces: int, ranks: int, coordinate: int) -> Stretches:
    """Cuts into `pieces`, each of them again into `ranks`, as torch.chunk does; the part of `coordinate` in each."""
    result: Stretches = []
    for begin, end in _cuts(sum(count for _, count in stretches), pieces):
        first, last = _cuts(end - begin, ranks)[coordinate]
        result += _part(stretches, begin + first, begin + last)
    merged: Stretches = []
    for begin, count in result:
        if merged and sum(merged[-1]) == begin:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((begin, count))
    return merged


def _cuts(extent: int, pieces: int) -> list[tuple[int, int]]:
    size = -(-extent // pieces)
    return [(min(i * size, extent), min((i + 1) * size, extent)) for i in range(pieces)]


def _part(stretches: Stretches, begin: int, end: int) -> Stretches:
    """The elements [begin, end) of what lies in the stretches, one after another."""
    result: Stretches = []
    position = 0
    for start, count in stretches:
        low, high = max(begin, position), min(end, position + count)
        if low < high:
            result.append((start + low - position, high - low))
        position += count
    return result
