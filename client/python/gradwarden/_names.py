"""What parameters and groups are called: by the paths of the model's modules, without what wrappers add to them."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Union

import torch

from ._core import Error

Groups = Union[str, Mapping[str, str], Callable[[str], str]]
Tensors = Union[torch.nn.Module, Iterable[tuple[str, torch.Tensor]]]

# torch.compile, activation checkpointing and FSDP put modules of these names between ours.
_WRAPPERS = frozenset(("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"))
_PREFIX = "module."
_DATA_PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    while True:
        if isinstance(model, _DATA_PARALLEL):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):
            model = inner
        else:
            return model


def clean_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_tensors(tensors: Tensors) -> list[tuple[str, torch.Tensor]]:
    """Of a module its parameters; else the pairs as they are given. Raises Error on what is neither."""
    if isinstance(tensors, torch.nn.Module):
        return [(clean_name(name), parameter) for name, parameter in _unwrapped(tensors).named_parameters()]
    given = list(tensors) if isinstance(tensors, Iterable) and not isinstance(tensors, torch.Tensor) else [tensors]
    for entry in given:
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], torch.Tensor)):
            raise Error(
                f"guard: the model holds {type(entry).__name__!r}; allowed: a torch.nn.Module, or pairs of a name and a "
                "tensor, as of model.named_parameters()"
            )
    named = [(clean_name(str(name)), tensor) for name, tensor in given]
    if all(name.startswith(_PREFIX) for name, _ in named):  # those of a DistributedDataParallel itself
        named = [(name[len(_PREFIX) :], tensor) for name, tensor in named]
    return named


def taking_gradients(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """By name. Raises Error where there are none, or two of one name."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in named:
        if not (tensor.requires_grad or tensor.grad is not None):
            continue
        if name in found:
            raise Error(f"bind: two tensors are called {name!r}; allowed: a name of its own for each")
        found[name] = tensor
    if not found:
        raise Error("bind: no tensor that takes a gradient; allowed: one or more")
    return found


def _module_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def layer_of(name: str) -> str:
    """The path down to the layer's number, for example h.3 of h.3.attn.weight; without a number the module."""
    parts = _module_of(name).split(".")
    for i, part in enumerate(parts):
        if part.isdigit() and not (i + 1 < len(parts) and parts[i + 1].isdigit()):
            return ".".join(parts[: i + 1])
    return ".".join(parts)


_BY_WORD: dict[str, Callable[[str], str]] = {"layer": layer_of, "module": _module_of, "tensor": lambda name: name}


def _asked(function: Callable[[str], str], name: str) -> str:
    try:
        group = function(name)
    except Exception as error:
        raise Error(f"guard: groups failed for {name!r} ({type(error).__name__}: {error})") from error
    if not isinstance(group, str) or not group:
        raise Error(f"guard: groups gave {group!r} for {name!r}; allowed: the name of a group")
    return group


def grouping(groups: Groups | None) -> Callable[[str], str]:
    """From a tensor's name to its group's. Raises Error with what is allowed."""
    if groups is None:
        return layer_of
    if isinstance(groups, str):
        if groups not in _BY_WORD:
            raise Error(
                f"guard: groups is {groups!r}; allowed: {', '.join(_BY_WORD)}, a dict of patterns and names, a function"
            )
        return _BY_WORD[groups]
    if isinstance(groups, Mapping):
        patterns = [(str(pattern), str(group)) for pattern, group in groups.items()]
        return lambda name: next(
            (group for pattern, group in patterns if fnmatch.fnmatchcase(name, pattern)), layer_of(name)
        )
    if callable(groups):
        return functools.partial(_asked, groups)
    raise Error(f"guard: groups is a {type(groups).__name__}; allowed: a word, a dict of patterns and names, a function")
