"""The exchange between ranks, through torch.distributed. Without it a run has one rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ._core import Error


class Ranks:
    """A process group of its own (gloo, host memory), so that our exchange stands in no queue of the trainer's.

    Making one is collective. Used by one thread.
    """

    def __init__(self, process_group: Any = None) -> None:
        self._group = process_group
        if not (dist.is_available() and dist.is_initialized()):
            if process_group is not None:
                raise Error("guard: process_group is given, but torch.distributed is not initialized")
            self.rank, self.size = 0, 1
            return
        if process_group is None:
            self._group = dist.new_group(backend="gloo")
        self.rank, self.size = dist.get_rank(self._group), dist.get_world_size(self._group)
        if self.rank < 0:
            raise Error("guard: this process is not in process_group")

    def exchange(self) -> Callable[[memoryview, memoryview], None] | None:
        """What the core calls with the bytes of this rank and room for those of all; None for a single rank."""
        if self.size == 1:
            return None
        group = self._group  # not self: the core must not keep the guard alive
        # Its name from torch 2.13 on; the old one warns there.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

        def all_gather(send: memoryview, receive: memoryview) -> None:
            gather(torch.frombuffer(receive, dtype=torch.uint8), torch.frombuffer(send, dtype=torch.uint8), group=group)

        return all_gather

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Each rank's one-dimensional tensor of one dtype, in host memory; their lengths may differ. Collective."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(tensor)]), group=self._group)
        padded = tensor.new_zeros(int(max(lengths)))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self._group)
        return [part[: int(length)] for part, length in zip(parts, lengths)]

    def agree(self, problem: str, value: Any = None) -> list[Any]:
        """Raises Error on every rank if `problem` is not empty on one, else gives each rank's value; collective."""
        told: list[Any] = [(problem, value)]
        if self.size > 1:
            told = [None] * self.size
            dist.all_gather_object(told, (problem, value), group=self._group)
        for rank, (found, _) in enumerate(told):
            if found:
                raise Error(f"rank {rank}: {found}" if self.size > 1 else found)
        return [value for _, value in told]
