"""Gradients that are not in host memory, read and scaled by torch operations on their own device.

The contract is that of the core's kernels: one set of statistics for each stretch, in float64 where the device has it, the
same decision, and the same products. What the decision needs comes to the host in one copy, which waits for the device: the
one wait of a step. Memory is read three times, where kernels would read it once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import _core
from ._core import StepOutcome
from ._layout_sources import flat, is_dense
from ._slots import Slot

# Tests set it, to hold this path against the kernels' on the same tensors.
_FORCED = False

# Of float32 sums on devices without float64: each over this many elements, then added in float64 on the host.
_CHUNK = 4096
_COLUMNS = 6  # power sum, largest, NaN, Inf, zeros, index of the first non-finite or -1


class TorchPath:
    """In the place of the core's Follower, and of its pass over the gradients."""

    def __init__(self, core: _core.RankGuard, slots: Sequence[Slot], norm_type: float) -> None:
        self._core, self._slots, self._norm_type = core, slots, norm_type
        self._stretches = core.stretches()
        self._gradients: list[torch.Tensor | None] = []
        self.absent = 0

    @staticmethod
    def needed(slots: Sequence[Slot]) -> bool:
        return _FORCED or any(slot.memory.device.type != "cpu" for slot in slots)

    def find_gradients(self, core: _core.RankGuard) -> int:
        """As the Follower's."""
        self._gradients = []
        for i, slot in enumerate(self._slots):
            gradient = slot.source.grad  # type: ignore[attr-defined]
            if gradient is not None:
                if gradient.layout != torch.strided or gradient.dtype != slot.dtype or gradient.numel() != slot.piece.count:
                    return i
                if not is_dense(gradient):
                    return i
                gradient = flat(gradient.detach())
            self._gradients.append(gradient)
        self.absent = sum(gradient is None for gradient in self._gradients)
        return -1

    def find_parameters(self, core: _core.RankGuard) -> int:
        return -1

    def place(self, core: _core.RankGuard) -> None:
        """Nothing: the core reads no memory."""

    place_local = place

    def step(self, *arguments: Any) -> StepOutcome:
        """As the core's; the gradients are those that were found."""
        stretches = [self._part(one) for one in self._stretches]
        present = [i for i, part in enumerate(stretches) if part is not None]
        tensors = [part for part in stretches if part is not None]
        table = self._empty([one.count for one in self._stretches])
        if tensors:
            table[present] = read(tensors, self._norm_type)
        outcome, scalings = self._core.step_outside(table, *arguments)  # type: ignore[arg-type]
        scale(tensors, [scalings[i] for i in present])
        return outcome

    def observe_local(self, views: Mapping[str, torch.Tensor]) -> None:
        """Of the gradients before their reduction: those that were found, or where the views say."""
        if views:
            local = [flat(views[slot.parameter_name]) for slot in self._slots if slot.in_bucket]
            self._core.observe_local_outside(read(local, self._norm_type))  # type: ignore[arg-type]
            return
        table = self._empty([slot.piece.count for slot in self._slots])
        present = [i for i, gradient in enumerate(self._gradients) if gradient is not None]
        if present:
            table[present] = read([g for g in self._gradients if g is not None], self._norm_type)
        self._core.observe_local_outside(table)  # type: ignore[arg-type]

    def _part(self, stretch: Any) -> torch.Tensor | None:
        gradient = self._gradients[stretch.shard]
        return None if gradient is None else gradient[stretch.begin : stretch.begin + stretch.count]

    @staticmethod
    def _empty(counts: list[int]) -> torch.Tensor:
        """Of tensors without a gradient: zeros."""
        table = torch.zeros(len(counts), _COLUMNS, dtype=torch.float64)
        table[:, 4] = torch.tensor(counts, dtype=torch.float64)
        table[:, 5] = -1
        return table


def without_float64(device: torch.device) -> bool:
    return device.type == "mps"


@torch.no_grad()
def read(tensors: Sequence[torch.Tensor], norm_type: float, *, single: bool | None = None) -> torch.Tensor:
    """The table that the core takes: a row for each one-dimensional tensor, in host memory.

    `single`: in float32 arithmetic, as for devices without float64; None: as the device has it.
    """
    table = torch.zeros(len(tensors), _COLUMNS, dtype=torch.float64)
    table[:, 5] = -1
    held = [i for i, tensor in enumerate(tensors) if tensor.numel()]
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i in held:
        alike.setdefault((tensors[i].device, tensors[i].dtype), []).append(i)
    for (device, _), places in alike.items():
        low = without_float64(device) if single is None else single
        table[places] = _statistics([tensors[i] for i in places], norm_type, low)
    for i in held:
        if not math.isfinite(table[i, 1]) or math.isnan(table[i, 0]):
            table[i] = _with_non_finite(tensors[i], norm_type, single)
    return table


def _statistics(tensors: list[torch.Tensor], norm_type: float, single: bool) -> torch.Tensor:
    """Power sums, maxima and zeros of tensors of one device and dtype; not finite where the elements are not, but for zeros."""
    largest = torch.stack(torch._foreach_norm(tensors, math.inf))
    zeros = torch.stack([tensor.numel() - torch.count_nonzero(tensor) for tensor in tensors])
    rows = torch.zeros(len(tensors), _COLUMNS, dtype=torch.float64)
    rows[:, 5] = -1
    if math.isinf(norm_type):
        rows[:, 1], rows[:, 4] = largest.cpu().double(), zeros.cpu()
        return rows
    if single:
        rows[:, 1], rows[:, 4] = largest.cpu().double(), zeros.cpu()
        powers = [_chunked(t, m, norm_type) for t, m in zip(tensors, rows[:, 1].tolist())]
        rows[:, 0] = torch.tensor(powers, dtype=torch.float64)
        return rows
    norms = torch.stack(torch._foreach_norm(tensors, norm_type, dtype=torch.float64))
    told = torch.stack([norms, largest.double(), zeros.double()]).cpu()  # the one wait
    rows[:, 0], rows[:, 1], rows[:, 4] = told[0].pow(norm_type), told[1], told[2]
    return rows


def _chunked(tensor: torch.Tensor, largest: float, norm_type: float) -> float:
    """In float32, of elements that are scaled to 1 so that no power leaves its range; the chunks' sums in float64."""
    if largest == 0 or not math.isfinite(largest):
        return largest if largest == 0 else math.nan
    # Two exact powers of two, as one alone may not be a float32.
    _, exponent = math.frexp(largest)
    half = exponent // 2
    sums = []
    for part in torch.split(tensor, _CHUNK * 1024):
        scaled = part.float().abs() * 2.0**-half * 2.0 ** (half - exponent)
        powers = scaled.square() if norm_type == 2 else scaled.pow(norm_type)
        whole = powers.numel() // _CHUNK * _CHUNK
        sums.append(powers[:whole].view(-1, _CHUNK).sum(1))
        sums.append(powers[whole:].sum().view(1))
    power: float = torch.cat(sums).cpu().double().sum().item() * 2.0 ** (exponent * norm_type)
    return power


def _with_non_finite(tensor: torch.Tensor, norm_type: float, single: bool | None) -> torch.Tensor:
    """Of a tensor with NaN or Inf: its finite elements, and how many are not. The step is about to be skipped."""
    finite: torch.Tensor = torch.isfinite(tensor)
    nan, bad = int(torch.isnan(tensor).sum()), int((~finite).sum())
    row = read([torch.where(finite, tensor, torch.zeros_like(tensor))], norm_type, single=single)[0]
    row[2], row[3] = nan, bad - nan
    row[4] -= bad  # the zeros that were put there
    row[5] = int((~finite).int().argmax()) if bad else -1
    return row


@torch.no_grad()
def scale(tensors: Sequence[torch.Tensor], scalings: Sequence[tuple[float, float]]) -> None:
    """Multiplies by the factors and clamps to the limits, where those are not 1 and 0. In place."""
    alike: dict[Any, list[torch.Tensor]] = {}
    for tensor, (factor, limit) in zip(tensors, scalings):
        if tensor.numel() and (factor != 1 or limit > 0):
            alike.setdefault((factor, limit, tensor.device, tensor.dtype), []).append(tensor)
    for (factor, limit, _, dtype), group in alike.items():
        if factor != 1:
            _multiply(group, factor, dtype)
        if limit > 0:
            for tensor in group:
                tensor.clamp_(-limit, limit)


def _multiply(group: list[torch.Tensor], factor: float, dtype: torch.dtype) -> None:
    exponent = math.frexp(factor)[1]
    if dtype == torch.float64 or -120 < exponent < 120:
        torch._foreach_mul_(group, factor)
        return
    # Beyond float32's normal range: in two steps, as the kernels do, each a float32 product.
    half = max(-125, min(127, exponent // 2))
    first, second = math.ldexp(factor, half - exponent), math.ldexp(1.0, min(127, exponent - half))
    for tensor in group:
        tensor.copy_(tensor.float().mul_(first).mul_(second))
