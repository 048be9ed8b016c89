"""FullyShardedDataParallel (FSDP1): flat parameters, of which each rank holds a range.

How a flat parameter is put together stands in private attributes of torch; they are read here and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ._core import Error
from ._layout_dtensor import boxes_of, layout_of
from ._layout_sources import Source
from ._names import clean_name

try:
    from torch.distributed.fsdp import FullyShardedDataParallel
except ImportError:  # a torch without torch.distributed
    FullyShardedDataParallel = None  # type: ignore[assignment, misc]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _private(function: _Function) -> _Function:
    @functools.wraps(function)
    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except AttributeError as error:
            raise Error(
                f"FullyShardedDataParallel of torch {torch.__version__} keeps its layout elsewhere ({error}); pass layout= "
                "with a gradwarden.Shard for each of its parameters"
            ) from error

    return guarded  # type: ignore[return-value]


def is_flat(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "_is_flat_param", False)


def is_flattened(tensor: torch.Tensor) -> bool:
    """Whether it is a view into a flat parameter (use_orig_params=True)."""
    return getattr(tensor, "_fsdp_flattened", False) and not is_flat(tensor)


@_private
def flattened_in(module: torch.nn.Module) -> dict[int, tuple[Any, int]]:
    """For each original parameter of the FSDP modules in `module`, by id: its flat parameter and the index in it."""
    found: dict[int, tuple[Any, int]] = {}
    if FullyShardedDataParallel is None:
        return found
    for part in module.modules():
        if not isinstance(part, FullyShardedDataParallel) or part._handle is None:
            continue
        flat = part._handle.flat_param
        for index, parameter in enumerate(flat._params or ()):
            found[id(parameter)] = (flat, index)
    return found


class _Sharded(Source):
    def unexpected(self, local: torch.Tensor) -> str:
        return (
            f"the gradient of {self.name!r} has {local.numel()} elements, this rank's shard {self.local_shape.numel()}: it is "
            "not reduced yet; call step() after a backward pass outside no_sync()"
        )

    @_private
    def hold(self, whole: str, flat: Any, index: int, *, first: int) -> None:
        """The part of the original parameter `index` that lies at `first` in this source's memory."""
        info = flat._shard_param_infos[index]
        if not info.in_shard:
            return
        shape, extension = flat._shapes[index], flat._param_extensions[index]
        count, offset = info.numel_in_shard, info.intra_param_start_idx
        if extension is None:
            self.holding(whole=whole, count=count, total=shape.numel(), first=first, offset=offset)
            return
        # Tensor parallel before it was flattened: a range of the local box.
        spec = getattr(extension, "_spec", extension)
        boxes = boxes_of(whole, layout_of(whole, spec.shape, spec.mesh, spec.placements[-1:], shape))
        if len(boxes) != 1:
            raise Error(f"tensor {whole!r} was placed as {spec.placements} before it was flattened; pass layout= for it")
        self.holding_box(whole, tuple(spec.shape), *boxes[0], first=first, offset=offset, count=count)


class OriginalSource(_Sharded):
    """A parameter of use_orig_params=True: a view into this rank's shard of the flat one, empty where it lies elsewhere."""

    @_private
    def __init__(self, name: str, parameter: torch.Tensor, flat: Any, index: int) -> None:
        super().__init__(name, parameter, (flat._shard_param_infos[index].numel_in_shard or 0,))
        self.hold(name, flat, index, first=0)


class FlatSource(_Sharded):
    """A FlatParameter: this rank's shard of several whole parameters, one after another, with padding."""

    @_private
    def __init__(self, name: str, parameter: Any) -> None:
        super().__init__(name, parameter, parameter._sharded_size)
        prefix = name.removesuffix("_flat_param")
        for index, info in enumerate(parameter._shard_param_infos):
            self.hold(clean_name(prefix + parameter._fqns[index]), parameter, index, first=info.offset_in_shard or 0)
