"""FullyShardedDataParallel (FSDP1): flat parameters, of which each rank holds a range.

How a flat parameter is put together stands in private attributes of torch; they are read here and nowhere else.
"""

import functools

import torch

from ._core import Error
from ._layout_dtensor import boxes_of, layout_of
from ._layout_sources import Source

try:
    from torch.distributed.fsdp import FullyShardedDataParallel
except ImportError:  # a torch without torch.distributed
    FullyShardedDataParallel = None


def _private(function):
    @functools.wraps(function)
    def guarded(*arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except AttributeError as error:
            raise Error(
                f"FullyShardedDataParallel of torch {torch.__version__} keeps its layout elsewhere ({error}); pass layout= "
                "with a gradwarden.Shard for each of its parameters"
            ) from error

    return guarded


def is_flat(tensor):
    return getattr(tensor, "_is_flat_param", False)


def is_flattened(tensor):
    """Whether it is a view into a flat parameter (use_orig_params=True)."""
    return getattr(tensor, "_fsdp_flattened", False) and not is_flat(tensor)


@_private
def flattened_in(module):
    """For each original parameter of the FSDP modules in `module`, by id: its flat parameter and the index in it."""
    found = {}
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
    def unexpected(self, local):
        return (
            f"the gradient of {self.name!r} has {local.numel()} elements, this rank's shard {self.local_shape.numel()}: it is "
            "not reduced yet; call step() after a backward pass outside no_sync()"
        )

    @_private
    def hold(self, whole, flat, index, *, first):
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
    def __init__(self, name, parameter, flat, index):
        super().__init__(name, parameter, (flat._shard_param_infos[index].numel_in_shard or 0,))
        self.hold(name, flat, index, first=0)


class FlatSource(_Sharded):
    """A FlatParameter: this rank's shard of several whole parameters, one after another, with padding."""

    @_private
    def __init__(self, name, parameter, plain_name):
        super().__init__(name, parameter, parameter._sharded_size)
        prefix = name.removesuffix("_flat_param")
        for index, info in enumerate(parameter._shard_param_infos):
            self.hold(plain_name(prefix + parameter._fqns[index]), parameter, index, first=info.offset_in_shard or 0)
