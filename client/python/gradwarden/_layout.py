"""Which part of which whole tensor this rank holds, found out from the tensors themselves.

A source is one parameter as the guard reads it: the local memory of its gradient, and the pieces of whole tensors that lie
in that memory. Ranks that hold the same elements are found to be replicas when the core binds; nobody has to say so.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Union

import torch

from . import _layout_dtensor, _layout_fsdp
from ._core import Error
from ._layout_sources import Source, WholeSource

_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A hint: this rank's tensor is a part of a whole one that torch does not know of.

    `whole` is a number of elements, and the local tensor holds them from `start` on, one after another (a ZeRO
    partition; what reaches beyond the whole is padding); or it is a shape, and the local tensor is the box of it whose
    first element has the coordinates `start`.

        Guard(..., layout={"flat": gradwarden.Shard(whole=total, start=rank * part)})
    """

    whole: Union[int, Sequence[int]]
    start: Union[int, Sequence[int]] = 0


@dataclasses.dataclass(frozen=True)
class Hints:
    """What cannot be found out. Both by name pattern, of which the first that matches counts.

    `layout`: how a tensor lies in a whole one. `distinct`: the process group (or one-dimensional DeviceMesh) in which each
    rank has a tensor of its own under the same name, as experts are, or a label of this rank's own.
    """

    layout: Mapping[str, Shard]
    distinct: Mapping[str, Any]

    def layout_of(self, name: str) -> Shard | None:
        hint = _matching(self.layout, name)
        if hint is not None and not isinstance(hint, Shard):
            raise Error(f"layout: {name!r} is given {hint!r}; allowed: gradwarden.Shard")
        return hint

    def suffix_of(self, name: str) -> str:
        owner = _matching(self.distinct, name)
        if owner is None:
            return ""
        if isinstance(owner, (int, str)):
            return f"@{owner}"
        try:
            if hasattr(owner, "get_group"):  # a DeviceMesh
                owner = owner.get_group()
            return f"@{torch.distributed.get_rank(owner)}"
        except (AttributeError, RuntimeError, ValueError, TypeError) as error:
            raise Error(
                f"distinct: {name!r} is given {owner!r}; allowed: a process group, a 1-D DeviceMesh or a label"
            ) from error


def hints_of(layout: Mapping[str, Shard] | None, distinct: Mapping[str, Any] | None) -> Hints:
    for name, given in (("layout", layout), ("distinct", distinct)):
        if given is not None and not isinstance(given, Mapping):
            raise Error(f"guard: {name} is a {type(given).__name__}; allowed: a dict from patterns of names, or None")
    return Hints(layout or {}, distinct or {})


def find(parameters: Mapping[str, torch.Tensor], model: object, hints: Hints) -> list[Source]:
    """A source for each parameter of the model; a tensor that has two names counts once. Raises Error."""
    flattened = _layout_fsdp.flattened_in(model) if isinstance(model, torch.nn.Module) else {}
    seen, sources = set(), []
    for name, tensor in parameters.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        source = _source(name, tensor, flattened, hints.layout_of(name))
        source.pieces = [dataclasses.replace(p, suffix=hints.suffix_of(p.path)) for p in source.pieces]
        sources.append(source)
    return sources


def _source(name: str, tensor: torch.Tensor, flattened: Mapping[int, Any], hint: Shard | None) -> Source:
    if hint is not None:
        return _hinted(name, tensor, hint)
    if _layout_dtensor.is_dtensor(tensor):
        return _layout_dtensor.DTensorSource(name, tensor)
    if id(tensor) in flattened:
        return _layout_fsdp.OriginalSource(name, tensor, *flattened[id(tensor)])
    if _layout_fsdp.is_flat(tensor):
        return _layout_fsdp.FlatSource(name, tensor)
    if _layout_fsdp.is_flattened(tensor):
        raise Error(
            f"tensor {name!r} is part of a flat parameter of FullyShardedDataParallel; give the FSDP module itself in "
            "place of its named_parameters()"
        )
    return WholeSource(name, tensor)


def _hinted(name: str, tensor: torch.Tensor, hint: Shard) -> Source:
    if _layout_dtensor.is_dtensor(tensor):
        raise Error(f"layout: {name!r} is a DTensor, whose placements say it all; allowed: plain tensors")
    if isinstance(hint.whole, int):
        source = Source(name, tensor, tensor.shape)
        if not isinstance(hint.start, int) or hint.start < 0:
            raise Error(f"layout: {name!r} starts at {hint.start!r} of {hint.whole} elements; allowed: their index")
        held = max(0, min(tensor.numel(), hint.whole - hint.start))
        source.holding(whole=name, count=held, total=hint.whole, offset=min(hint.start, hint.whole))
        return source
    shape = tuple(hint.whole)
    start = (0,) * len(shape) if isinstance(hint.start, int) else tuple(hint.start)
    if len(shape) != tensor.ndim or len(start) != tensor.ndim:
        raise Error(f"layout: {name!r} has {tensor.ndim} dimensions; give as many in whole {shape} and start {start}")
    box = _RowMajorSource(name, tensor, tensor.shape)
    box.holding_box(name, shape, start, tuple(tensor.shape))
    return box


class _RowMajorSource(Source):
    def local(self, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.detach()
        if gradient.layout == torch.strided and not gradient.is_contiguous():
            self.parameter.grad = gradient = gradient.contiguous()
        return gradient


def _matching(by_pattern: Mapping[str, _Value], name: str) -> _Value | None:
    for pattern, value in by_pattern.items():
        if fnmatch.fnmatchcase(name, pattern):
            return value
    return None
