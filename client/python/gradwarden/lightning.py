"""Lightning: the guard as a callback.

    trainer = lightning.Trainer(callbacks=[gradwarden.lightning.GuardCallback(max_norm=1.0, skip="3x-rolling-mean")])

Leave Trainer(gradient_clip_val) alone: the guard clips. Any strategy whose gradients are in the model's parameters after
backward() (DDP, FSDP, one device, model parallel), automatic or manual optimization, one optimizer, any precision. With
"16-mixed" Lightning's own scaler skips what overflowed before the guard sees it, and the optimizer cannot be a fused one.
"""

from __future__ import annotations

from typing import Any

from ._core import Error
from ._guard import Guard
from ._intercept import Intercepted
from ._monitor import log

try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl


class GuardCallback(pl.Callback):
    """Makes a Guard of the trainer's model and optimizer when training starts; options are those of Guard.

    A checkpoint holds the guard's state, as every callback's: after training that of its end. `guard` is there while training
    runs, and after it for its history. With log=True the norm, the clip coefficient and whether the step was skipped are
    logged as metrics.
    """

    def __init__(self, *, log: bool = False, **options: Any) -> None:
        self.guard: Guard | None = None
        self._options, self._log = options, log
        self._intercepted: Intercepted | None = None  # while training runs
        self._saved: dict[str, Any] | None = None  # of a checkpoint, or of the end of the last training

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.gradient_clip_val:
            raise Error("gradwarden: Trainer(gradient_clip_val) and the guard both clip; leave the trainer's out")
        if len(trainer.optimizers) != 1:
            raise Error(f"gradwarden: {len(trainer.optimizers)} optimizers; the callback guards one. Make a Guard yourself")
        (optimizer,) = trainer.optimizers
        # Lightning unscales for the others before their step, where the guard is; see its _optimizer_handles_unscaling().
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise Error(
                f"gradwarden: with a loss scaler Lightning leaves the gradients of a fused {type(optimizer).__name__} scaled,"
                ' and the guard would misread them; make it with fused=False, or train with precision="bf16-mixed"'
            )
        # The strategy's: under FSDP it is the wrapped one that knows how it is sharded.
        self.guard = Guard(trainer.strategy.model, optimizer, **self._options)
        self._trainer = trainer
        self._intercepted = Intercepted(optimizer, self._step)
        if self._saved is not None:
            self.guard.load_state_dict(self._saved)

    def _step(self, original: Any, loss: Any) -> None:
        assert self.guard is not None
        if loss is None and self._trainer.lightning_module.automatic_optimization and not _has_gradients(self._trainer):
            original()  # training_step() returned None: there was no backward pass
            return
        outcome = self.guard.step(self._trainer.global_step, loss)
        if outcome.stop_requested:
            self._trainer.should_stop = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        outcome = None if self.guard is None else self.guard.last
        if self._log and outcome is not None:
            pl_module.log("grad_norm", outcome.grad_norm)
            pl_module.log("clip_coefficient", outcome.clip_coefficient)
            pl_module.log("skipped", float(not outcome.should_update))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end()

    def state_dict(self) -> dict[str, Any]:
        if self.guard is None or self._intercepted is None:
            return self._saved or {}
        return self.guard.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.guard is not None and self._intercepted is not None:
            self.guard.mark_checkpoint()

    def _end(self) -> None:
        if self._intercepted is None:  # there was no training, or it has ended: this is of a test, say
            return
        self._intercepted.undo()
        self._intercepted = None
        assert self.guard is not None
        try:
            self._saved = self.guard.state_dict()  # for the checkpoints that come after the end
        except Exception as error:  # of an ill device, say; it must not hide the one that training ended with
            log.warning("the guard's last state is not kept (%s)", error)
        self.guard.close()


def _has_gradients(trainer: Any) -> bool:
    return any(p.grad is not None for group in trainer.optimizers[0].param_groups for p in group["params"])
