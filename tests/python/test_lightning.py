"""The callback of Lightning. Exit code 77, for skipped, where lightning is missing."""

import logging
import os
import sys
import tempfile
import unittest
import warnings

import torch

try:
    import lightning.pytorch as pl
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import test_examples

import gradwarden
import gradwarden.lightning

STEPS, SPIKE, BATCH = 30, 20, 4
OPTIONS = {"max_norm": 0.5, "skip": "3x-rolling-mean", "window": 10, "warmup": 10}


class Regression(pl.LightningModule):
    def __init__(self, manual=False, optimizers=1, none_at=None, fused=False, fails_at=None):
        super().__init__()
        torch.manual_seed(2)
        self.network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.automatic_optimization = not manual
        self.wanted, self.none_at, self.fused, self.fails_at = optimizers, none_at, fused, fails_at
        self.norms, self.states, self.steps = [], [], []

    def on_fit_start(self):
        self.steps = [optimizer.step for optimizer in self.trainer.optimizers]  # as the schedule wrapped them

    def training_step(self, batch, index):
        if index == self.fails_at:
            raise ValueError("in training")
        loss = torch.nn.functional.mse_loss(self.network(batch[0])[:, 0], batch[1])
        if self.automatic_optimization:
            return None if index == self.none_at else loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        self._note()
        optimizer.step()

    def test_step(self, batch, index):
        raise ValueError("in a test")

    def on_before_optimizer_step(self, optimizer):
        if self.automatic_optimization:
            self._note()

    def _note(self):
        held = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
        self.norms.append(torch.cat(held).double().norm().item() if held else None)

    def on_train_batch_end(self, *_):
        self.states.append([p.detach().clone() for p in self.parameters()])

    def configure_optimizers(self):
        all_optimizers = [torch.optim.Adam(self.parameters(), lr=1e-2, fused=self.fused) for _ in range(self.wanted)]
        if self.wanted > 1:
            return all_optimizers
        return all_optimizers, [torch.optim.lr_scheduler.StepLR(all_optimizers[0], 10)]

    def moved(self):
        """The steps after which the parameters were others."""
        torch.manual_seed(2)
        before = [p.detach().clone() for p in Regression().parameters()]
        found = []
        for n, after in enumerate(self.states):
            if any(not torch.equal(a, b) for a, b in zip(before, after)):
                found.append(n)
            before = after
        return found


def loader(spike=SPIKE):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(STEPS * BATCH, 6, generator=generator)
    y = x.sum(1)
    if spike is not None:
        y[spike * BATCH : (spike + 1) * BATCH] *= 1000
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)


class CallbackTest(unittest.TestCase):
    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        warnings.simplefilter("ignore")

    def fit(self, module, callback, spike=SPIKE, checkpoint=None, **arguments):
        trainer = pl.Trainer(
            **{
                "max_epochs": 1,
                "accelerator": "cpu",
                "devices": 1,
                "callbacks": [callback],
                "default_root_dir": self.directory,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **arguments,
            }
        )
        trainer.fit(module, loader(spike), ckpt_path=checkpoint)
        return trainer

    def test_clips_and_leaves_a_spike_out(self):
        for manual in (False, True):
            callback, module = gradwarden.lightning.GuardCallback(log=True, **OPTIONS), Regression(manual)
            trainer = self.fit(module, callback)
            history = callback.guard.history
            self.assertEqual(module.moved(), [n for n in range(STEPS) if n != SPIKE])
            self.assertEqual(history["decision"][SPIKE], "skip")
            self.assertEqual(len(history["step"]), STEPS)
            for found, expected in zip(history["grad_norm"], module.norms):
                self.assertAlmostEqual(found / expected, 1, delta=1e-6)
            self.assertLess(history["clip_coefficient"].min(), 1)
            self.assertEqual(float(trainer.callback_metrics["skipped"]), 0)
            self.assertIs(trainer.optimizers[0].step, module.steps[0])
            if not manual:
                self.assertGreater(history["loss"][SPIKE], 1000)

    def test_accumulated_batches_are_one_step(self):
        callback = gradwarden.lightning.GuardCallback(max_norm=1.0)
        self.fit(Regression(), callback, spike=None, accumulate_grad_batches=3)
        self.assertEqual(len(callback.guard.history["step"]), STEPS // 3)

    def test_bfloat16_precision_is_guarded(self):
        callback, module = gradwarden.lightning.GuardCallback(**OPTIONS), Regression()
        self.fit(module, callback, precision="bf16-mixed")
        self.assertEqual(module.moved(), [n for n in range(STEPS) if n != SPIKE])

    def test_a_batch_without_a_loss_is_no_step_of_the_guard(self):
        callback = gradwarden.lightning.GuardCallback(**OPTIONS)
        self.fit(Regression(none_at=7), callback, spike=None)
        self.assertEqual(len(callback.guard.history["step"]), STEPS - 1)

    def test_a_resumed_run_goes_on_with_the_window_of_its_checkpoint(self):
        whole = gradwarden.lightning.GuardCallback(**OPTIONS)
        saver = pl.callbacks.ModelCheckpoint(self.directory, "{step}", every_n_train_steps=15, save_top_k=-1)
        self.fit(Regression(), whole, callbacks=[whole, saver], enable_checkpointing=True)
        (checkpoint,) = (name for name in os.listdir(self.directory) if "step=15" in name)
        resumed = gradwarden.lightning.GuardCallback(**OPTIONS)
        self.fit(Regression(), resumed, checkpoint=os.path.join(self.directory, checkpoint))
        one, two = whole.guard.history, resumed.guard.history
        # Lightning does not go on in the middle of the data, so only the first step sees what it did then.
        self.assertEqual(two["step"][0], 15)
        self.assertEqual(two["rolling_mean"][0], one["rolling_mean"][15])
        self.assertGreater(two["rolling_mean"][0], 0)

    def steps_in(self, path):
        """Of the guard whose state is in a checkpoint."""
        callbacks = torch.load(path, weights_only=False)["callbacks"]
        (state,) = (state for name, state in callbacks.items() if "GuardCallback" in name)
        return state["steps"]

    def test_a_checkpoint_that_is_saved_after_training_holds_the_state_of_its_end(self):
        callback, path = gradwarden.lightning.GuardCallback(**OPTIONS), os.path.join(self.directory, "final.ckpt")
        self.fit(Regression(), callback).save_checkpoint(path)
        self.assertEqual(self.steps_in(path), STEPS)
        resumed = gradwarden.lightning.GuardCallback(**OPTIONS)
        self.fit(Regression(), resumed, checkpoint=path, max_epochs=2)
        history = resumed.guard.history
        self.assertEqual(history["step"].tolist(), list(range(STEPS, 2 * STEPS)))
        self.assertGreater(history["rolling_mean"][0], 0)

    def test_the_last_checkpoint_is_saved_where_none_was_before_the_end(self):
        callback = gradwarden.lightning.GuardCallback(**OPTIONS)
        saver = pl.callbacks.ModelCheckpoint(self.directory, save_last=True, every_n_train_steps=1000)
        self.fit(Regression(), callback, callbacks=[callback, saver], enable_checkpointing=True)
        self.assertEqual(self.steps_in(os.path.join(self.directory, "last.ckpt")), STEPS)

    def test_an_exception_is_not_hidden_by_the_guards_end_and_a_checkpoint_of_it_is_whole(self):
        callback, module = gradwarden.lightning.GuardCallback(**OPTIONS), Regression(fails_at=7)
        saver = pl.callbacks.ModelCheckpoint(self.directory, "failed", save_on_exception=True, every_n_train_steps=1000)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            callbacks=[callback, saver],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with self.assertRaisesRegex(ValueError, "in training"):
            trainer.fit(module, loader())
        self.assertEqual(self.steps_in(os.path.join(self.directory, "failed.ckpt")), 7)
        self.assertIs(trainer.optimizers[0].step, module.steps[0])
        with self.assertRaisesRegex(ValueError, "in a test"):
            trainer.test(module, loader(), verbose=False)

    def test_under_a_loss_scaler_a_fused_optimizer_is_refused_and_another_is_guarded(self):
        def scaled():
            return [pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))]

        with self.assertRaisesRegex(gradwarden.Error, "leaves the gradients of a fused Adam scaled.*fused=False"):
            self.fit(Regression(fused=True), gradwarden.lightning.GuardCallback(), plugins=scaled())
        callback, module = gradwarden.lightning.GuardCallback(**OPTIONS), Regression()
        self.fit(module, callback, spike=None, plugins=scaled())
        self.assertEqual(module.moved(), list(range(STEPS)))
        for found, expected in zip(callback.guard.history["grad_norm"], module.norms):
            self.assertAlmostEqual(found / expected, 1, delta=1e-6)

    def test_a_requested_stop_ends_training(self):
        callback = gradwarden.lightning.GuardCallback(skip_above=1e-9, max_consecutive_skips=3, fallback="request_stop")
        self.fit(Regression(), callback, spike=None)
        self.assertLess(len(callback.guard.history["step"]), 6)

    def test_what_would_clip_twice_or_guard_half_is_refused(self):
        for module, arguments, text in (
            (Regression(), {"gradient_clip_val": 1.0}, "both clip"),
            (Regression(manual=True, optimizers=2), {}, "2 optimizers"),
        ):
            with self.assertRaisesRegex(gradwarden.Error, text):
                self.fit(module, gradwarden.lightning.GuardCallback(), **arguments)

    def test_the_example_runs(self):
        self.assertEqual(test_examples.run("lightning_trainer.py"), "guarded 60 steps, skipped [40]")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    unittest.main()
