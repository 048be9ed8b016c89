"""gradwarden: keeps one bad step from ruining a training run.

    guard = gradwarden.Guard(model, optimizer, max_norm=1.0, skip="3x-rolling-mean")
    ...
    loss.backward()
    guard.step(loss=loss)  # in place of clip_grad_norm_() and optimizer.step()

Under DistributedDataParallel every rank makes these calls; gradwarden.ddp tells one ill rank from all.
"""

from . import ddp
from ._clip import clip_grad_norm_
from ._core import ClipRule, Error, Fallback, GroupRule, NonFinite, SpikeAction, StepOutcome
from ._core import version as _version
from ._guard import Guard
from ._layout import Shard
from ._plot import plot

__version__: str = _version()
__all__ = [
    "ClipRule",
    "Error",
    "Fallback",
    "GroupRule",
    "Guard",
    "NonFinite",
    "Shard",
    "SpikeAction",
    "StepOutcome",
    "clip_grad_norm_",
    "ddp",
    "plot",
]
