"""gradwarden: keeps one bad step from ruining a training run.

    guard = gradwarden.Guard(max_norm=1.0, skip_above_rolling_mean=3.0)
    guard.bind(model.named_parameters())
    ...
    loss.backward()
    if guard.step(loss=loss).should_update:
        optimizer.step()

Under DistributedDataParallel every rank makes these calls; gradwarden.ddp tells one ill rank from all.
"""

from . import ddp
from ._core import ClipRule, Error, Fallback, GroupRule, SpikeAction, StepOutcome
from ._core import version as _version
from ._guard import Guard
from ._layout import Shard

__version__ = _version()
__all__ = ["ClipRule", "Error", "Fallback", "GroupRule", "Guard", "Shard", "SpikeAction", "StepOutcome", "ddp"]
