"""The callback of Hugging Face's Trainer. Exit code 77, for skipped, where transformers is missing."""

import os
import sys
import tempfile
import unittest
import warnings

import torch

try:
    import accelerate
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import test_examples

import gradwarden
import gradwarden.transformers

STEPS, SPIKE, BATCH = 30, 20, 4


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.mse_loss(self.network(x)[:, 0], labels)}


def rows(spike=SPIKE):
    torch.manual_seed(4)
    x = torch.randn(STEPS * BATCH, 6)
    y = x.sum(1)
    if spike is not None:
        y[spike * BATCH : (spike + 1) * BATCH] *= 1000
    return [{"x": a, "labels": b} for a, b in zip(x, y)]


class Watcher(transformers.TrainerCallback):
    """Whether each optimizer step moved the parameters, and the gradients' norm at it."""

    def __init__(self):
        self.moved, self.norms = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self._before = [p.detach().clone() for p in model.parameters()]
        self.norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double().norm().item())

    def on_optimizer_step(self, args, state, control, model=None, **_):
        self.moved.append(any(not torch.equal(a, b) for a, b in zip(self._before, model.parameters())))


def trainer_of(directory, callback, watcher, spike=SPIKE, **arguments):
    torch.manual_seed(2)
    args = transformers.TrainingArguments(
        directory,
        **{
            "per_device_train_batch_size": BATCH,
            "max_steps": STEPS,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "train_sampling_strategy": "sequential",
            "save_strategy": "no",
            **arguments,
        },
    )
    return transformers.Trainer(Regression(), args, train_dataset=rows(spike), callbacks=[callback, watcher])


OPTIONS = {"skip": "3x-rolling-mean", "window": 10, "warmup": 10}


class CallbackTest(unittest.TestCase):
    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def test_clips_with_the_trainers_limit_and_leaves_a_spike_out(self):
        callback, watcher = gradwarden.transformers.GuardCallback(**OPTIONS), Watcher()
        trainer = trainer_of(self.directory, callback, watcher, max_grad_norm=0.5)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            trainer.train()
        self.assertFalse([w for w in warned if "optimizer.step()" in str(w.message)])
        history = callback.guard.history
        self.assertEqual([n for n, moved in enumerate(watcher.moved) if not moved], [SPIKE])
        self.assertEqual(history["decision"][SPIKE], "skip")
        self.assertEqual(history["step"].tolist(), list(range(STEPS)))
        for found, expected in zip(history["grad_norm"], watcher.norms):
            self.assertAlmostEqual(found / expected, 1, delta=1e-6)  # not of gradients that the trainer had clipped
        self.assertLess(history["clip_coefficient"].min(), 1)
        self.assertEqual(trainer.args.max_grad_norm, 0.5)
        self.assertNotIn("_step", vars(trainer.optimizer))
        self.assertGreater(history["loss"][SPIKE], 1000)

    def test_the_callbacks_limit_comes_before_the_trainers(self):
        callback = gradwarden.transformers.GuardCallback(max_norm=1e9)
        trainer_of(self.directory, callback, Watcher(), spike=None, max_grad_norm=1e-3).train()
        self.assertEqual(callback.guard.history["clip_coefficient"].min(), 1)

    def test_accumulated_batches_are_one_step_with_their_mean_loss(self):
        callback, watcher = gradwarden.transformers.GuardCallback(), Watcher()
        trainer = trainer_of(self.directory, callback, watcher, spike=None, gradient_accumulation_steps=3, max_steps=4)
        trainer.train()
        history = callback.guard.history
        self.assertEqual(len(history["step"]), 4)
        torch.manual_seed(2)
        first, data = Regression(), rows(None)
        losses = []
        for part in range(3):
            batch = data[part * BATCH : (part + 1) * BATCH]
            losses.append(first(torch.stack([r["x"] for r in batch]), torch.stack([r["labels"] for r in batch]))["loss"])
        self.assertAlmostEqual(history["loss"][0], torch.stack(losses).mean().item(), delta=1e-5)

    def test_a_resumed_run_goes_on_with_the_window_of_its_checkpoint(self):
        whole = gradwarden.transformers.GuardCallback(**OPTIONS)
        trainer_of(self.directory, whole, Watcher(), save_strategy="steps", save_steps=15).train()
        resumed = gradwarden.transformers.GuardCallback(**OPTIONS)
        trainer = trainer_of(self.directory, resumed, Watcher())
        trainer.train(resume_from_checkpoint=os.path.join(self.directory, "checkpoint-15"))
        one, two = whole.guard.history, resumed.guard.history
        self.assertEqual(two["step"].tolist(), list(range(15, STEPS)))
        self.assertEqual(two["decision"].tolist(), one["decision"][15:].tolist())
        self.assertEqual(two["rolling_mean"].tolist(), one["rolling_mean"][15:].tolist())
        self.assertGreater(two["rolling_mean"][0], 0)

    def test_after_a_training_that_an_exception_left_the_next_one_is_guarded_as_the_first(self):
        class Failing(transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **_):
                if state.global_step == 5:
                    raise MemoryError("of step 5")

        callback, failing = gradwarden.transformers.GuardCallback(), Failing()
        trainer = trainer_of(self.directory, callback, Watcher(), spike=None, max_grad_norm=0.05)
        trainer.add_callback(failing)
        with self.assertRaisesRegex(MemoryError, "of step 5"):
            trainer.train()
        interrupted = callback.guard
        self.assertEqual(len(interrupted.history["step"]), 5)
        trainer.remove_callback(failing)
        trainer.train()
        self.assertEqual(callback.guard.history["step"].tolist(), list(range(STEPS)))
        self.assertLess(callback.guard.history["clip_coefficient"].max(), 1)
        self.assertEqual(trainer.args.max_grad_norm, 0.05)
        self.assertFalse(trainer.model._forward_hooks)
        with self.assertRaisesRegex(gradwarden.Error, "closed"):
            interrupted.state_dict()

    def test_with_a_scaler_an_overflow_halves_the_scale_and_a_spike_does_not(self):
        accelerate.Accelerator(cpu=True)
        model = Regression()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        inner = torch.optim.SGD(model.parameters(), lr=1e-3)
        optimizer = accelerate.optimizer.AcceleratedOptimizer(inner, scaler=scaler)
        callback = gradwarden.transformers.GuardCallback(skip_above=1e6)
        args = transformers.TrainingArguments(self.directory, use_cpu=True, report_to=[])
        callback.on_train_begin(args, transformers.TrainerState(), transformers.TrainerControl(), model, optimizer)
        for y, moves, scale in ((1.0, True, 64.0), (1e9, False, 64.0), (float("inf"), False, 32.0), (1.0, True, 32.0)):
            before = [p.detach().clone() for p in model.parameters()]
            scaler.scale(model(torch.ones(2, 6), torch.full((2,), y))["loss"]).backward()
            optimizer.step()
            moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
            self.assertEqual((moved, scaler.get_scale(), optimizer.step_was_skipped), (moves, scale, not moves))
            optimizer.zero_grad()
        callback.on_train_end(args, transformers.TrainerState(), transformers.TrainerControl())
        self.assertEqual(optimizer.step.__func__, accelerate.optimizer.AcceleratedOptimizer.step)

    def test_an_optimizer_that_no_callback_reaches_is_refused(self):
        callback = gradwarden.transformers.GuardCallback()
        with self.assertRaisesRegex(gradwarden.Error, "optimizer is a NoneType"):
            callback.on_train_begin(None, None, None, Regression(), None)

    def test_a_requested_stop_ends_training(self):
        callback = gradwarden.transformers.GuardCallback(
            skip_above=1e-9, max_consecutive_skips=3, fallback="request_stop"
        )
        trainer_of(self.directory, callback, Watcher(), spike=None).train()
        self.assertLess(len(callback.guard.history["step"]), 6)

    def test_the_example_runs_alone_and_as_two_processes(self):
        for ranks in (0, 2):
            self.assertRegex(test_examples.run("hugging_face.py", ranks=ranks), "guarded (40|20) steps")


if __name__ == "__main__":
    unittest.main()
