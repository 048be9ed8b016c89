"""Gradients in the memory of one NVIDIA GPU: read, judged and scaled there, on torch's current stream, by the core's kernels.

With fused optimizers, which take found_inf and grad_scale from the device, a step waits for nothing: its outcome is a promise
that waits when it is asked. Else there is one wait, for the decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import _core
from ._core import Error, StepOutcome
from ._layout_sources import flat, is_dense
from ._monitor import log
from ._slots import Slot


class Hardware:
    """What of torch.cuda is used here; tests put an emulated GPU in its place."""

    def fits(self, device: torch.device) -> bool:
        return device.type == "cuda" and torch.version.cuda is not None

    def stream(self, device: torch.device) -> int:
        return int(torch.cuda.current_stream(device).cuda_stream)

    def current(self, device: torch.device) -> Any:
        return torch.cuda.device(device)

    def scalar(self, address: int, device: torch.device) -> torch.Tensor:
        from ._device_memory import floats_at

        return floats_at(address, device)

    def zeros(self, count: int, device: torch.device) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.uint8, device=device)

    def exchange(self, device: torch.device, size: int) -> tuple[int, Any]:
        """A communicator of NCCL's or 0, and else a function that enqueues an exchange."""
        from ._device_memory import communicator_of, gather_through

        communicator = communicator_of(device, size)
        return communicator, None if communicator else gather_through(device)


hardware = Hardware()


class Pending:
    """The outcome of a step on the device: any question about it waits for the decision."""

    def __init__(self, path: DevicePath, step: int) -> None:
        self._path, self._step, self._outcome = path, step, None

    def known(self, outcome: StepOutcome) -> None:
        self._outcome = outcome

    def __getattr__(self, name: str) -> Any:
        if self._outcome is None:
            self._outcome = self._path.decided(self._step)
        return getattr(self._outcome, name)

    def __repr__(self) -> str:
        return f"StepOutcome(step={self._step}, not asked for yet)" if self._outcome is None else repr(self._outcome)


class DevicePath:
    """In the place of the core's Follower, and of its pass over the gradients."""

    def __init__(self, core: _core.RankGuard, slots: Sequence[Slot], size: int, optimizer_scales: bool) -> None:
        self._core, self._slots = core, slots
        self._device = slots[0].memory.device
        self._item_bytes = [slot.memory.element_size() for slot in slots]
        self._counts = [slot.piece.count for slot in slots]
        self._waits, self._loss = True, None
        self._local_bound: list[int] = []
        self._warned = False
        self._held: list[torch.Tensor] = []  # what the coming step reads
        self._addresses = torch.zeros(len(slots), dtype=torch.int64)
        self._parameters: list[torch.Tensor] = []  # by slot, where the core reads them
        self._bound_parameters: list[tuple[torch.dtype, int]] = []
        self._parameter_addresses = torch.zeros(0, dtype=torch.int64)
        self._zeros: torch.Tensor | None = None
        self._pending: list[tuple[int, Pending]] = []
        self.absent = 0
        self.optimizer_scales = optimizer_scales
        communicator, gather = (0, None) if size == 1 else hardware.exchange(self._device, size)
        with hardware.current(self._device):
            core.device_make(optimizer_scales, gather, communicator, self.stream())

    @staticmethod
    def fits(slots: Sequence[Slot]) -> bool:
        """Whether all gradients of this rank lie on one GPU that the core has kernels for."""
        devices = {slot.memory.device for slot in slots}
        return _core.has_device_guard() and len(devices) == 1 and hardware.fits(next(iter(devices)))

    def stream(self) -> int:
        return hardware.stream(self._device)

    def expect(self, loss: Any, waits: bool) -> None:
        """Of the coming step: a loss on the device is read there; without `waits` its outcome is a promise."""
        self._loss, self._waits = loss, waits

    def bind(
        self, gradients: list[Any], local: list[Any], held: list[Any], state: bytes, parameters: list[torch.Tensor]
    ) -> None:
        """`held` describes the memory of `parameters`, which is looked up again in every step."""
        self._local_bound = self._found_at()
        self._parameters = parameters
        self._bound_parameters = [(one.dtype, one.numel()) for one in parameters]
        with hardware.current(self._device):
            self._core.device_bind(gradients, local, held, self.stream())
            self._core.device_restore_state(state, self.stream())
            self.found_inf = hardware.scalar(self._core.device_found_inf(), self._device)
            self.grad_scale = hardware.scalar(self._core.device_grad_scale(), self._device)

    def find_gradients(self, core: _core.RankGuard) -> int:
        """As the Follower's."""
        self._held = []
        addresses = []
        self.absent = 0
        for i, slot in enumerate(self._slots):
            gradient = slot.source.grad  # type: ignore[attr-defined]
            if gradient is None:
                self.absent += 1
                addresses.append(self._nothing() if self._counts[i] else 0)
                continue
            if gradient.layout != torch.strided or gradient.dtype != slot.dtype or gradient.numel() != self._counts[i]:
                return i
            if gradient.device != self._device or not is_dense(gradient):
                return i
            gradient = flat(gradient.detach())
            self._held.append(gradient)
            addresses.append(gradient.data_ptr())
        self._addresses = torch.tensor(addresses, dtype=torch.int64)
        return -1

    def find_parameters(self, core: _core.RankGuard) -> int:
        """As the Follower's."""
        addresses = []
        for i, (parameter, bound) in enumerate(zip(self._parameters, self._bound_parameters)):
            if (parameter.dtype, parameter.numel()) != bound or parameter.device != self._device or not is_dense(parameter):
                return i
            addresses.append(parameter.data_ptr())
        self._parameter_addresses = torch.tensor(addresses, dtype=torch.int64)
        return -1

    def place(self, core: _core.RankGuard) -> None:
        with hardware.current(self._device):
            self._core.device_update(self._addresses, self.stream())
            if self._parameters:
                self._core.device_update_parameters(self._parameter_addresses, self.stream())

    def place_local(self, core: _core.RankGuard) -> None:
        """Nothing: see observe_local()."""

    def observe_local(self, views: Mapping[str, torch.Tensor]) -> None:
        """Reads local gradients where they were bound: DDP's buckets, or gradients that do not move from step to step."""
        if not views and self._found_at() != self._local_bound:
            if not self._warned:
                log.warning("observe_local: gradients on a GPU have moved, and are not observed; keep them in place with zero_grad(set_to_none=False)")
            self._warned = True
            return
        with hardware.current(self._device):
            self._core.device_observe_local(self.stream())

    def save_state(self) -> bytes:
        """Waits for the stream."""
        return self._core.device_save_state(self.stream())

    def restore_state(self, state: bytes) -> None:
        self._core.device_restore_state(state, self.stream())

    def flush(self) -> None:
        """Waits for the last step, so that finished() gives all."""
        if self._pending:
            try:
                self._core.device_wait(self._pending[-1][0])
            except Error as error:
                log.warning("the last step's outcome is not known: %s", error)

    def _found_at(self) -> list[int]:
        return [0 if slot.source.grad is None else slot.source.grad.data_ptr() for slot in self._slots]  # type: ignore[attr-defined]

    def step(
        self,
        number: int,
        loss: float | None,
        learning_rate: float | None,
        loss_scale: float | None,
        unscaled: bool,
        optimizer_scales: bool,
        batch_ids: list[str],
    ) -> Any:
        """As the core's; the gradients are those that were found."""
        loss_at = self._loss_on_device()
        # A scaler that has unscaled them already still owns an overflow.
        scale = 1.0 if unscaled and loss_scale else loss_scale
        with hardware.current(self._device):
            address = 0 if loss_at is None else loss_at.data_ptr()
            self._core.device_step(number, loss, address, learning_rate, scale, batch_ids, self.stream())
        self._held = []  # enqueued: what the stream's later work does with this memory comes after
        pending = Pending(self, number)
        self._pending = self._pending[-63:] + [(number, pending)]
        if self._waits:
            pending.known(self._core.device_wait(number))
            return pending._outcome
        return pending

    def decided(self, number: int) -> StepOutcome:
        """Waits for the decision of the last step; for that of an earlier one there is nothing to wait for."""
        if not self._pending or self._pending[-1][0] != number:
            raise Error(f"the outcome of step {number} is no longer there; guard.history has what was kept of it")
        return self._core.device_wait(number)

    def finished(self) -> list[StepOutcome]:
        """The steps that have ended since the last call, in order."""
        outcomes = self._core.device_finished()
        ended = {outcome.step: outcome for outcome in outcomes}
        for number, pending in self._pending:
            if number in ended and pending._outcome is None:
                pending.known(ended[number])
        return outcomes

    def _loss_on_device(self) -> torch.Tensor | None:
        loss, self._loss = self._loss, None
        if not isinstance(loss, torch.Tensor) or loss.device != self._device or loss.numel() != 1:
            return None
        return loss.detach().float().reshape(())

    def _nothing(self) -> int:
        if self._zeros is None:
            most = max(count * size for count, size in zip(self._counts, self._item_bytes))
            self._zeros = hardware.zeros(most, self._device)
        return self._zeros.data_ptr()
