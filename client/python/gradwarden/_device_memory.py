"""Device memory that torch does not own, as tensors, and the exchange of such memory between ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ._core import Error


class _Span:
    """What torch.as_tensor() takes for memory of a GPU."""

    def __init__(self, address: int, count: int, kind: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": (count,),
            "typestr": kind,
            "strides": None,
            "version": 3,
        }


def floats_at(address: int, device: torch.device) -> torch.Tensor:
    """One float32 that somebody else owns."""
    return torch.as_tensor(_Span(address, 1, "<f4"), device=device)[0]


def bytes_at(address: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(_Span(address, count, "|u1"), device=device)


def communicator_of(device: torch.device, size: int) -> int:
    """The NCCL communicator of the default process group, if torch shows it; else 0. Raises Error if it has other ranks."""
    _check_ranks(size)
    try:
        if torch.version.cuda is None:
            return 0
        backend = dist.group.WORLD._get_backend(device)
        return int(backend._comm_ptr()) if dist.get_backend() in ("nccl", "cpu:gloo,cuda:nccl") else 0
    except Exception:  # no such method, or no communicator yet
        return 0


def _check_ranks(size: int) -> None:
    """The guard's own group is of gloo, which enqueues nothing on a stream: its ranks must be those of the default one."""
    world = dist.get_world_size()
    if world != size:
        raise Error(
            f"guard: process_group has {size} of the {world} ranks, and gradients on a GPU are exchanged through the default"
            " process group; allowed: all ranks (process_group=None)"
        )


def gather_through(device: torch.device) -> Any:
    """What the core calls to enqueue an exchange on the stream that is current: the default process group's."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    size = dist.get_world_size()

    def all_gather(send: int, receive: int, count: int, stream: int) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device)):
            gather(bytes_at(receive, count * size, device), bytes_at(send, count, device))

    return all_gather
