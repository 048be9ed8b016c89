"""Which part of which whole tensor this rank holds, found out from the tensors themselves.

A source is one parameter as the guard reads it: the local memory of its gradient, and the pieces of whole tensors that lie
in that memory. Ranks that hold the same elements are found to be replicas when the core binds; nobody has to say so.
"""

import dataclasses
import fnmatch

import torch

from . import _layout_dtensor, _layout_fsdp
from ._core import Error
from ._layout_sources import Source, WholeSource

# What wrappers put into the names of parameters.
_WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A hint: this rank's tensor is a part of a whole one that torch does not know of.

    `whole` is a number of elements, and the local tensor holds them from `start` on, one after another (a ZeRO
    partition; what reaches beyond the whole is padding); or it is a shape, and the local tensor is the box of it whose
    first element has the coordinates `start`.

        Guard(..., layout={"flat": gradwarden.Shard(whole=total, start=rank * part)})
    """

    whole: object
    start: object = 0


def find(tensors, *, distinct=None, layout=None):
    """A source for each tensor that takes a gradient, by name. `tensors`: a module, or pairs (name, tensor).

    A tensor that is given twice counts once. `layout`: Shard by name pattern. `distinct`: by name pattern, the process
    group (or one-dimensional DeviceMesh) in which each rank has a parameter of its own under the same name, as experts
    are; or a label of this rank's own. Raises Error.
    """
    module = tensors if isinstance(tensors, torch.nn.Module) else None
    pairs = list(module.named_parameters() if module is not None else tensors)
    flattened = _layout_fsdp.flattened_in(module) if module is not None else {}
    seen, sources = set(), []
    for name, tensor in zip(_plain_names([name for name, _ in pairs]), (tensor for _, tensor in pairs)):
        if id(tensor) in seen or not (tensor.requires_grad or tensor.grad is not None):
            continue
        seen.add(id(tensor))
        source = _source(name, tensor, flattened, _matching(layout, name))
        source.rename(lambda whole: whole + _suffix(_matching(distinct, whole), whole))
        sources.append(source)
    return {source.name: source for source in sources}


def _source(name, tensor, flattened, hint):
    if hint is not None:
        return _hinted(name, tensor, hint)
    if _layout_dtensor.is_dtensor(tensor):
        return _layout_dtensor.DTensorSource(name, tensor)
    if id(tensor) in flattened:
        return _layout_fsdp.OriginalSource(name, tensor, *flattened[id(tensor)])
    if _layout_fsdp.is_flat(tensor):
        return _layout_fsdp.FlatSource(name, tensor, plain_name)
    if _layout_fsdp.is_flattened(tensor):
        raise Error(
            f"tensor {name!r} is part of a flat parameter of FullyShardedDataParallel; give the FSDP module itself in "
            "place of its named_parameters()"
        )
    return WholeSource(name, tensor)


def _hinted(name, tensor, hint):
    if not isinstance(hint, Shard):
        raise Error(f"layout: {name!r} is given {hint!r}; allowed: gradwarden.Shard")
    local = tensor.to_local() if _layout_dtensor.is_dtensor(tensor) else tensor
    if isinstance(hint.whole, int):
        held = max(0, min(local.numel(), hint.whole - hint.start))
        return Source(name, tensor, local.shape).holding(whole=name, count=held, total=hint.whole, offset=hint.start)
    shape, start = tuple(hint.whole), tuple(hint.start) if hint.start else (0,) * len(hint.whole)
    if len(shape) != local.ndim or len(start) != local.ndim:
        raise Error(f"layout: {name!r} has {local.ndim} dimensions; give as many in whole {shape} and start {start}")
    source = Source(name, tensor, local.shape)
    return source.holding_box(name, shape, start, tuple(local.shape))


def plain_name(name):
    """The name of a parameter as the network itself has it, without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    while name.startswith("module."):  # of DistributedDataParallel
        name = name[len("module.") :]
    return name


def _plain_names(names):
    """Where two would become one, all stay as they are."""
    plain = [plain_name(name) for name in names]
    return plain if len(set(plain)) == len(set(names)) else names


def _matching(by_pattern, name):
    for pattern, value in (by_pattern or {}).items():
        if fnmatch.fnmatchcase(name, pattern):
            return value
    return None


def _suffix(owner, name):
    if owner is None:
        return ""
    if isinstance(owner, (int, str)):
        return f"@{owner}"
    try:
        if hasattr(owner, "get_group"):  # a DeviceMesh
            owner = owner.get_group()
        return f"@{torch.distributed.get_rank(owner)}"
    except (RuntimeError, ValueError, TypeError) as error:
        raise Error(f"distinct: {name!r} is given {owner!r}; allowed: a process group, a 1-D DeviceMesh or a label") from error
