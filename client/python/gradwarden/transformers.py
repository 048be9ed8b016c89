"""Hugging Face transformers: the guard as a callback of Trainer.

    trainer = transformers.Trainer(model, args, ..., callbacks=[gradwarden.transformers.GuardCallback(skip="3x-rolling-mean")])

TrainingArguments(max_grad_norm) is the guard's max_norm, unless the callback is given one: the guard clips, and the trainer
only looks at the norm. One process, DDP and FSDP through accelerate, gradient accumulation, bf16 and fp16. DeepSpeed steps
in its own engine, where no callback reaches; see RECIPES.md.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers

from ._core import Error
from ._guard import Guard
from ._intercept import Intercepted
from ._monitor import log

_STATE_FILE = "gradwarden.pt"


class GuardCallback(transformers.TrainerCallback):
    """Makes a Guard of the trainer's model and optimizer when training starts; options are those of Guard.

    The guard's state is saved with each checkpoint of the trainer, and read when training resumes from one in its
    output_dir. `guard` is there while training runs, and after it for its history.
    """

    def __init__(self, **options: Any) -> None:
        self.guard: Guard | None = None
        self._options = options
        self._intercepted: Intercepted | None = None  # while training runs
        self._losses: list[torch.Tensor] = []  # of the backward passes of this step
        self._summed = False  # each is a part of the step's loss, which the model divided by all of its items

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any) -> None:
        self._end()  # of a training that an exception left: the trainer calls no on_train_end() then
        if not hasattr(optimizer, "gradient_state") or not isinstance(optimizer.optimizer, torch.optim.Optimizer):
            raise Error(f"gradwarden: the trainer's optimizer is a {type(optimizer).__name__}, which no callback can guard")
        options = dict(self._options)
        if args.max_grad_norm and args.max_grad_norm > 0:
            options.setdefault("max_norm", args.max_grad_norm)
        self._accelerated, self._state, self._control = optimizer, state, control
        self.guard = Guard(model, optimizer.optimizer, **options)
        self._hook = model.register_forward_hook(self._note_loss, with_kwargs=True)
        self._intercepted = Intercepted(optimizer, self._step)
        self._args, self._max_grad_norm = args, args.max_grad_norm
        args.max_grad_norm = 0  # else the trainer clips first, and the guard sees no spike
        saved = os.path.join(_folder(args, state), _STATE_FILE)
        if state.global_step > 0 and os.path.exists(saved):
            self.guard.load_state_dict(torch.load(saved, weights_only=True))

    def _step(self, original: Any, _: Any) -> None:
        assert self.guard is not None
        losses, self._losses = self._losses, []
        if not self._accelerated.gradient_state.sync_gradients:
            original()
            return
        loss = None if not losses else torch.stack(losses).sum() if self._summed else torch.stack(losses).mean()
        scaler = self._accelerated.scaler
        outcome = self.guard.step(self._state.global_step, loss, scaler=scaler)
        # What a schedule of learning rates looks at to warn of steps that came in the wrong order.
        self._accelerated._opt_called = True
        if scaler is not None:
            scaler.update()
            # Then the trainer does not step the learning rate schedule either, as after its own scaler's skips.
            self._accelerated._is_overflow = not outcome.should_update
        if outcome.stop_requested:
            self._control.should_training_stop = True

    def _note_loss(self, model: Any, inputs: Any, keywords: dict[str, Any], outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
        if model.training and isinstance(loss, torch.Tensor) and loss.numel() == 1:
            self._summed = keywords.get("num_items_in_batch") is not None
            self._losses.append(loss.detach().reshape(()))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.guard is None:
            return
        try:
            if args.should_save:
                torch.save(self.guard.state_dict(), os.path.join(_folder(args, state), _STATE_FILE))
            self.guard.mark_checkpoint(max(0, state.global_step - 1))
        except OSError as error:
            log.warning("the guard's state is not in the checkpoint (%s)", error)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._intercepted is None:
            return
        self._intercepted.undo()
        self._intercepted = None
        self._hook.remove()
        self._losses = []
        self._args.max_grad_norm = self._max_grad_norm
        assert self.guard is not None
        self.guard.close()


def _folder(args: Any, state: Any) -> str:
    return os.path.join(args.output_dir, f"{transformers.trainer_utils.PREFIX_CHECKPOINT_DIR}-{state.global_step}")
