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
        self._held: list[_Held] = []  # of this backward pass
        self._warned = False

    # DDP looks at these annotations.
    def run(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
        if bucket.index() == 0:
            self._held.clear()  # of a pass that did not come to its end
        arrived = _Held(bucket, state if state is not None else dist.group.WORLD)
        self._held.append(arrived)
        observes = self._observes()
        if not observes:
            arrived.start()
        if bucket.is_last():
            all_held, self._held = self._held, []
            if observes:
                self._observe([held.bucket for held in all_held])
                for held in all_held:
                    held.start()
            self._passes += 1
            for held in all_held:
                held.finish()
        return arrived.reduced

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


class _Held:
    """A bucket between its arrival and the future that DDP waits for.

    That one is set here, in the thread of the backward pass, and never by a callback of the all-reduce: those run in
    threads of the process group, and a thread that runs Python while the interpreter ends aborts the process.
    """

    def __init__(self, bucket: Any, group: Any) -> None:
        self.bucket, self._group = bucket, group
        self._buffer = bucket.buffer()
        # On a GPU one that, as NCCL's own, makes the streams that wait for it wait for what was enqueued when it was set.
        self.reduced: torch.futures.Future[torch.Tensor] = torch.futures.Future(
            devices=[self._buffer.device] if self._buffer.is_cuda else None
        )

    def start(self) -> None:
        """As DDP's own: multiplied by 1 / ranks, which for three ranks is not the same bits as divided by them, then summed."""
        self._buffer.mul_(1.0 / dist.get_world_size(self._group))
        self._work = dist.all_reduce(self._buffer, group=self._group, async_op=True)

    def finish(self) -> None:
        """Waits as DDP would right after the last bucket; on a GPU the stream waits, not this thread."""
        self._work.wait()
        self.reduced.set_result(self._buffer)
