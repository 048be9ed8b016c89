"""Gradient clipping by total norm, as torch.nn.utils.clip_grad_norm_ does it, in fewer passes over memory."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable

import torch

from . import _core

_core.use_torch(torch.Tensor, torch.nn.Parameter)

_DTYPES = {
    _core.DType.FLOAT64: torch.float64,
    _core.DType.FLOAT32: torch.float32,
    _core.DType.BFLOAT16: torch.bfloat16,
    _core.DType.FLOAT16: torch.float16,
}


def clip_grad_norm_(
    parameters: torch.Tensor | Iterable[torch.Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """Scales the gradients of `parameters` in place so that their total norm is at most `max_norm`.

    A drop-in for torch.nn.utils.clip_grad_norm_: the same arguments, return value, errors and warnings, and gradients
    that agree within the rounding of their dtype. Dense gradients in host memory are read once, by
    torch.get_num_threads() threads, and written only if the norm is above `max_norm`. The norm is computed in float64, and
    rounded only when it is returned; where torch's own overflows (float16 above 65504, whose gradients torch wipes), the
    gradients are still clipped as they should be. All else, gradients on other devices, sparse ones, DTensors, non-finite
    ones, norms of an order that is not above 0, is passed on to torch.
    """
    if torch.compiler.is_compiling():
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
    if isinstance(parameters, torch.Tensor):
        listed: Iterable[torch.Tensor] = [parameters]
    elif isinstance(parameters, types.GeneratorType):
        listed = list(parameters) or parameters  # torch warns of an empty generator
    else:
        listed = list(parameters)
    clipped = _clip(listed, float(max_norm), float(norm_type), error_if_nonfinite)
    if clipped is None:
        return torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type, error_if_nonfinite, foreach)
    return clipped


def _clip(
    parameters: Iterable[torch.Tensor], max_norm: float, norm_type: float, error_if_nonfinite: bool
) -> torch.Tensor | None:
    """The norm, or None where this is torch's to do and nothing was changed."""
    if not (max_norm > 0 and norm_type > 0):
        return None
    grads = [grad for parameter in parameters if (grad := parameter.grad) is not None]
    if not grads:
        return None
    tensors = _core.gradient_list(grads)
    if tensors is None or (tensors.has_empty and math.isinf(norm_type)):  # of nothing there is no largest
        return None
    threads = torch.get_num_threads()
    total = tensors.read(norm_type, threads)
    if total.nan or total.infinite:  # torch spreads it over all gradients, or raises
        return None
    norm = torch.tensor(total.norm, dtype=_DTYPES[tensors.dtype], device="cpu")
    if error_if_nonfinite and not norm.isfinite():  # beyond what this dtype holds
        return None
    coefficient = max_norm / (total.norm + 1e-6)
    if coefficient < 1:
        tensors.scale(coefficient, threads)
        torch.autograd.graph.increment_version(grads)
    return norm
