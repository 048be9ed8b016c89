"""Copies of scalars and events for TensorBoard, W&B and MLflow."""

import logging
import tempfile
import types
import unittest
import warnings

import torch
from test_monitoring import MonitoringTest

import gradwarden


class Writer:
    """Stands for TensorBoard's SummaryWriter."""

    def __init__(self):
        self.scalars, self.texts = [], []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_text(self, name, text, step):
        self.texts.append((name, text, step))


class Run:
    """Stands for a run of W&B."""

    def __init__(self):
        self.rows = []

    def log(self, row, commit=True):
        self.rows.append((row, commit))


class Mlflow(types.SimpleNamespace):
    """Stands for the module mlflow."""

    def __init__(self):
        super().__init__(metrics=[], tags={})

    def log_metrics(self, metrics, step):
        self.metrics.append((metrics, step))

    def set_tag(self, name, text):
        self.tags[name] = text


class MirrorTest(MonitoringTest):
    def run_steps(self, guard):
        with self.quiet():
            for value in (1.0, 2.0, 50.0):
                self.step(guard, value)

    def test_tensorboard_gets_scalars_and_events(self):
        writer = Writer()
        self.run_steps(self.guard(skip="above-5", mirror=writer))
        self.assertIn(("gradwarden/grad_norm", 2.0, 1), writer.scalars)
        self.assertIn(("gradwarden/skipped", 1.0, 2), writer.scalars)
        self.assertIn(("gradwarden/threshold", 5.0, 0), writer.scalars)
        self.assertEqual([(name, step) for name, _, step in writer.texts], [("gradwarden/event", 2)])
        self.assertIn("absolute_limit", writer.texts[0][1])

    def test_wandb_rows_join_those_of_the_trainer(self):
        run = Run()
        guard = self.guard(skip="above-5")
        guard.mirror(run)
        self.run_steps(guard)
        self.assertEqual({commit for _, commit in run.rows}, {False})
        self.assertEqual([row["gradwarden/step"] for row, _ in run.rows], [0, 1, 2])
        self.assertEqual(["gradwarden/event" in row for row, _ in run.rows], [False, False, True])

    def test_mlflow_gets_metrics_and_the_last_event(self):
        mlflow = Mlflow()
        self.run_steps(self.guard(skip="above-5", mirror=mlflow))
        self.assertEqual([step for _, step in mlflow.metrics], [0, 1, 2])
        self.assertEqual(mlflow.metrics[1][0]["gradwarden/grad_norm"], 2.0)
        self.assertIn("absolute_limit", mlflow.tags["gradwarden.last_event"])

    def test_every_nth_step_and_every_event(self):
        writer = Writer()
        guard = self.guard(skip="above-5")
        guard.mirror(writer, every=2)
        with self.quiet():
            for value in (1.0, 1.0, 1.0, 50.0, 1.0, 1.0):
                self.step(guard, value)
        self.assertEqual(sorted({step for _, _, step in writer.scalars}), [0, 2, 3, 4])

    def test_a_writer_that_fails_is_logged_once_and_stops_nothing_else(self):
        class Failing:
            def add_scalar(self, *arguments):
                raise OSError("disk full")

        writer = Writer()
        guard = self.guard(mirror=Failing())
        guard.mirror(writer)
        with self.assertLogs("gradwarden", logging.WARNING) as logs:
            for _ in range(3):
                self.assertEqual(self.step(guard, 1.0).decision, "apply")
        self.assertEqual(len(logs.output), 1)
        self.assertIn("disk full", logs.output[0])
        self.assertEqual(len({step for _, _, step in writer.scalars}), 3)

    def test_what_is_no_writer_is_refused(self):
        for bad in (3, "tensorboard", object()):
            with self.assertRaisesRegex(gradwarden.Error, "allowed: a TensorBoard SummaryWriter"):
                self.guard(mirror=bad)
        with self.assertRaisesRegex(gradwarden.Error, "every is 0"):
            self.guard().mirror(Writer(), every=0)

    def test_the_real_tensorboard_takes_it(self):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.skipTest("tensorboard is not installed")
        with tempfile.TemporaryDirectory() as directory:
            with SummaryWriter(directory) as writer:
                self.run_steps(self.guard(skip="above-5", mirror=writer))
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(directory)
            events.Reload()
            self.assertEqual([event.value for event in events.Scalars("gradwarden/grad_norm")], [1.0, 2.0, 50.0])


if __name__ == "__main__":
    unittest.main()
