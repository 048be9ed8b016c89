"""DTensor: FSDP2's fully_shard, tensor parallelism, hybrids of both, and what else is made of placements.

The layout follows from the placements alone, computed here, and is checked against the local tensor's shape.
"""

import torch

from ._core import Error
from ._layout_sources import Source, memory_order

try:
    from torch.distributed.tensor import DTensor, Shard
except ImportError:  # a torch without torch.distributed
    DTensor = Shard = None

# A tensor that placements cut into more boxes than this on one rank is not worth describing.
_MOST_BOXES = 4096


def is_dtensor(tensor):
    return DTensor is not None and isinstance(tensor, DTensor)


class DTensorSource(Source):
    """A gradient that is placed otherwise than its parameter is redistributed to the parameter's placements.

    So does the optimizer with it. A gradient that is still a sum over ranks (Partial), as tensor parallelism leaves that of
    a replicated parameter, is thereby reduced; .grad then holds the reduced one. This communicates, on all ranks of the
    mesh alike.
    """

    def __init__(self, name, parameter):
        # Ranks agree on the order: these are the strides of the whole tensor.
        self._order = memory_order(parameter.stride())
        with torch.no_grad():
            local = parameter.to_local()
        super().__init__(name, parameter, local.shape)
        if parameter.device_mesh.get_coordinate() is None:
            return
        self._describe(layout_of(name, parameter.shape, parameter.device_mesh, parameter.placements, local.shape))

    def _describe(self, runs):
        """`runs`: by dimension, the stretches (begin, count) of the whole tensor that lie here one after another."""
        shape = tuple(self.parameter.shape[d] for d in self._order)
        runs = [runs[d] for d in self._order]
        first = 0
        for start, extent in boxes_of(self.name, runs):
            self.holding_box(self.name, shape, start, extent, first=first)
            first += torch.Size(extent).numel()

    def local(self, gradient):
        if not is_dtensor(gradient):
            raise Error(f"the gradient of {self.name!r} is a {type(gradient).__name__}; its parameter is a DTensor")
        if gradient.device_mesh != self.parameter.device_mesh:
            raise Error(f"the gradient of {self.name!r} is on another mesh than its parameter")
        if gradient.placements != self.parameter.placements:
            gradient = gradient.redistribute(placements=self.parameter.placements)
            self.parameter.grad = gradient
        local = gradient.to_local()
        if hasattr(local, "wait"):  # a collective may still be under way
            local = local.wait()
        if local.layout != torch.strided or local.permute(self._order).is_contiguous():
            return local
        dense = local.permute(self._order).contiguous().permute(_inverse(self._order))
        self.replace(dense)
        return dense

    def replace(self, memory):
        whole = self.parameter
        whole.grad = DTensor.from_local(
            memory, whole.device_mesh, whole.placements, shape=whole.shape, stride=whole.stride()
        )


def layout_of(name, shape, mesh, placements, local_shape):
    """By dimension, the stretches (begin, count) of a tensor that the placements give to this rank, in order."""
    runs = [[(0, extent)] for extent in shape]
    for mesh_dim in _order_of_cuts(placements, mesh.shape):
        placement = placements[mesh_dim]
        if placement.is_replicate():
            continue
        factor = getattr(placement, "split_factor", None)
        if factor is None and type(placement) is not Shard:
            raise Error(f"tensor {name!r} is placed as {placement}, which is not known here; pass layout= for it")
        d = placement.dim
        in_order = _cut_right_to_left(placements, mesh.shape)
        pieces = 1 if factor is None or in_order else factor
        runs[d] = _chunk(runs[d], pieces, mesh.shape[mesh_dim], mesh.get_coordinate()[mesh_dim])
    here = tuple(sum(count for _, count in stretches) for stretches in runs)
    if torch.Size(here).numel() != torch.Size(local_shape).numel() or (0 not in here and here != tuple(local_shape)):
        raise Error(
            f"tensor {name!r}: by its placements {tuple(placements)} this rank has {here} of {tuple(shape)}, but the local "
            f"tensor is {tuple(local_shape)}; pass layout= for it"
        )
    return runs


def boxes_of(name, runs):
    """The boxes (start, extent) that lie in the local memory one after another."""
    cut = max((d for d, stretches in enumerate(runs) if len(stretches) > 1), default=0)
    starts = [((), ())]
    for d, stretches in enumerate(runs):
        if d < cut:  # one box per index, as a box of several would not be contiguous
            stretches = [(begin + i, 1) for begin, count in stretches for i in range(count)]
        starts = [((*start, begin), (*extent, count)) for start, extent in starts for begin, count in stretches]
        if len(starts) > _MOST_BOXES:
            raise Error(f"tensor {name!r}: its placements cut it into more than {_MOST_BOXES} pieces on one rank")
    return [box for box in starts if 0 not in box[1]]


def _is_strided(placement):
    return getattr(placement, "split_factor", None) is not None


def _cut_right_to_left(placements, mesh_shape):
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


def _order_of_cuts(placements, mesh_shape):
    indices = range(len(placements))
    if not _cut_right_to_left(placements, mesh_shape):
        return indices
    return sorted(indices, key=lambda m: _is_strided(placements[m]))


def _chunk(stretches, pieces, ranks, coordinate):
    """Cuts into `pieces`, each of them again into `ranks`, as torch.chunk does; the part of `coordinate` in each."""
    result = []
    for begin, end in _cuts(sum(count for _, count in stretches), pieces):
        first, last = _cuts(end - begin, ranks)[coordinate]
        result += _part(stretches, begin + first, begin + last)
    merged = []
    for begin, count in result:
        if merged and sum(merged[-1]) == begin:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((begin, count))
    return merged


def _cuts(extent, pieces):
    size = -(-extent // pieces)
    return [(min(i * size, extent), min((i + 1) * size, extent)) for i in range(pieces)]


def _part(stretches, begin, end):
    """The elements [begin, end) of what lies in the stretches, one after another."""
    result, position = [], 0
    for start, count in stretches:
        low, high = max(begin, position), min(end, position + count)
        if low < high:
            result.append((start + low - position, high - low))
        position += count
    return result


def _inverse(order):
    return [order.index(d) for d in range(len(order))]
