"""DistributedDataParallel: the statistics of each rank's own gradients, before they are averaged.

Only these can tell one ill rank from all, and say on which rank a NaN was born.

    model = DistributedDataParallel(network, gradient_as_bucket_view=True)
    guard = gradwarden.Guard(model, optimizer, max_norm=1.0)
    model.register_comm_hook(None, gradwarden.ddp.observe_local_hook(guard))

Nothing is copied: DDP's buckets hold this rank's gradients before their all-reduce and the averaged ones after it, and
the guard reads the first there. In a step that observes, the all-reduces start when the backward pass has filled the last
bucket, and so do not overlap with it; Guard(local_every=n) observes in every n-th step, and the others overlap as usual.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ._core import Error

if TYPE_CHECKING:
    from ._guard import Guard

_log = logging.getLogger("gradwarden")

# DDP makes its buckets anew once, after the first backward pass that reduces: in the order in which that pass needed
# them. So every rank binds in the first two such passes, whatever it sees, and never after them: a rule that follows from
# a count is the same on all ranks, and needs no exchange to agree on, where one that looks at addresses would not be.
_BINDING_PASSES = 2


def observe_local_hook(guard: "Guard") -> Callable[[object, Any], torch.futures.Future[torch.Tensor]]:
    """A communication hook for one DistributedDataParallel model, whose `state` is its process group or None.

    It averages as DDP does without a hook, bit for bit (with gradient_as_bucket_view and zero_grad(set_to_none=False) only
    where the number of ranks is a power of two: DDP then divides instead). What goes wrong in the observation is logged,
    and never stops the backward pass; where guard.bind() would fail, guard.step() raises. Best with
    gradient_as_bucket_view=True: without it DDP copies each gradient out of its bucket.
    """
    return _Hook(guard).run


class _Hook:
    def __init__(self, guard: "Guard") -> None:
        self._guard = guard
        self._passes = 0
        self._held: list[tuple[Any, torch.futures.Future[torch.Tensor]]] = []  # (bucket, the future that DDP waits for) of this backward pass
        self._warned = False

    # DDP looks at these annotations.
    def run(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
        group = state if state is not None else dist.group.WORLD
        if not self._observes():
            if bucket.is_last():
                self._passes += 1
            return _average(bucket.buffer(), group)
        if bucket.index() == 0:
            self._held.clear()  # of a pass that did not come to its end
        reduced = _future_of(bucket.buffer())
        self._held.append((bucket, reduced))
        if bucket.is_last():
            held, self._held = self._held, []
            self._observe([bucket for bucket, _ in held])
            self._passes += 1
            for waiting, future in held:
                _average(waiting.buffer(), group).add_done_callback(_passing_to(future))
        return reduced.then(_value)

    def _observes(self) -> bool:
        return self._passes < _BINDING_PASSES or self._guard._observes()

    def _observe(self, buckets: list[Any]) -> None:
        try:
            views = self._views(buckets)
            if self._passes < _BINDING_PASSES:
                self._guard._bind_core(views)
            if self._guard._bound and self._guard._lies_in(views):
                self._guard._take_local(views)
            else:
                self._warn("DDP's buckets are not where they were bound; local gradients are not observed")
        except Error as error:  # of bind, on every rank alike; guard.step() says it again
            self._warn(str(error))

    def _views(self, buckets: list[Any]) -> dict[str, torch.Tensor]:
        views = {}
        for bucket in buckets:
            for name, view in zip(self._guard._names_of(bucket.parameters()), bucket.gradients()):
                if name is not None:
                    views[name] = view
        return views

    def _warn(self, text: str) -> None:
        if not self._warned:
            _log.warning("observe_local_hook: %s", text)
        self._warned = True


def _average(buffer: torch.Tensor, group: Any) -> torch.futures.Future[torch.Tensor]:
    """As DDP's own: multiplied by 1 / ranks, which for three ranks is not the same bits as divided by them, then summed."""
    buffer.mul_(1.0 / dist.get_world_size(group))
    reduced = dist.all_reduce(buffer, group=group, async_op=True).get_future()
    averaged: torch.futures.Future[torch.Tensor] = reduced.then(lambda done: done.value()[0])
    return averaged


def _future_of(buffer: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    """One that, as NCCL's own, makes the streams of those who wait for it wait for what was enqueued when it was set."""
    return torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)


def _value(done: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
    return done.value()


def _passing_to(
    future: torch.futures.Future[torch.Tensor],
) -> Callable[[torch.futures.Future[torch.Tensor]], None]:
    def pass_on(done: torch.futures.Future[torch.Tensor]) -> None:
        try:
            future.set_result(done.value())
        except Exception as error:  # DDP waits for `future`: it must hear of it
            future.set_exception(error)  # type: ignore[arg-type]

    return pass_on
