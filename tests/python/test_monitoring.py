"""What the guard tells: log, history, plots, files; and that none of it ever stops a training loop."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import unittest

import torch

import gradwarden


class MonitoringTest(unittest.TestCase):
    def setUp(self):
        self.weight = torch.nn.Parameter(torch.zeros(4))
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def guard(self, **options):
        guard = gradwarden.Guard([("layer.weight", self.weight), ("layer.bias", self.bias)], **options)
        self.addCleanup(guard.close)
        return guard

    def step(self, guard, value, **arguments):
        self.weight.grad = torch.tensor([value, 0.0, 0.0, 0.0])
        self.bias.grad = torch.zeros(2)
        return guard.step(**arguments)

    @contextlib.contextmanager
    def quiet(self):
        logger = logging.getLogger("gradwarden")
        before = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(before)


class LogTest(MonitoringTest):
    def test_a_skip_and_its_reason_are_warned_of(self):
        guard = self.guard(skip="above-5")
        with self.assertNoLogs("gradwarden"):
            self.step(guard, 1.0, step=7)
        with self.assertLogs("gradwarden", logging.WARNING) as logs:
            self.step(guard, 50.0, step=8)
        self.assertEqual(
            logs.output, ["WARNING:gradwarden:step 8: skipped, absolute_limit: grad norm 50, limit 5"])

    def test_the_tensors_that_are_not_finite_are_named(self):
        guard = self.guard()
        self.step(guard, 1.0)
        self.weight.grad[2] = float("nan")
        self.bias.grad[:] = float("-inf")
        with self.assertLogs("gradwarden", logging.WARNING) as logs:
            outcome = guard.step()
        self.assertIn("step 1: skipped, non_finite: 1 NaN, 2 Inf", logs.output[0])
        self.assertIn("layer.weight (rank 0, first at element 2), layer.bias (rank 0, first at element 0)", logs.output[0])
        self.assertEqual((outcome.nan_count, outcome.inf_count), (1, 2))
        self.assertEqual([(n.tensor, n.nan_count, n.inf_count, n.local) for n in outcome.non_finite], [
            ("layer.weight", 1, 0, False), ("layer.bias", 0, 2, False)])

    def test_of_many_tensors_the_first_are_named(self):
        named = [(f"h.{i}.weight", torch.nn.Parameter(torch.zeros(2))) for i in range(9)]
        for _, tensor in named:
            tensor.grad = torch.tensor([0.0, float("nan")])
        with self.assertLogs("gradwarden") as logs:
            gradwarden.Guard(named).step()
        self.assertIn("h.3.weight", logs.output[0])
        self.assertNotIn("h.4.weight", logs.output[0])
        self.assertIn("5 more", logs.output[0])

    def test_an_overflow_of_the_loss_scale_is_no_warning(self):
        guard = self.guard()
        with self.assertLogs("gradwarden", logging.INFO) as logs:
            self.step(guard, float("inf"), loss_scale=2.0)
        self.assertIn("INFO:gradwarden:step 0: skipped, loss_scale_overflow", logs.output[0])

    def test_a_stop_that_is_asked_for_is_an_error(self):
        guard = self.guard(skip="above-5", max_consecutive_skips=1, fallback="request_stop")
        with self.assertLogs("gradwarden") as logs:
            self.assertFalse(self.step(guard, 50.0).stop_requested)
            self.assertTrue(self.step(guard, 50.0).stop_requested)
        self.assertIn("ERROR:gradwarden:step 1", logs.output[1])


class HistoryTest(MonitoringTest):
    def test_holds_what_happened_as_arrays(self):
        guard = self.guard(max_norm=2.0, skip="above-5")
        with self.quiet():
            for step, value in enumerate((1.0, 4.0, 50.0, 2.0)):
                self.step(guard, value, loss=0.5 * step, learning_rate=0.1)
            self.step(guard, float("nan"))
        history = guard.history
        self.assertEqual(history["step"].tolist(), [0, 1, 2, 3, 4])
        self.assertEqual(history["grad_norm"].tolist()[:4], [1.0, 4.0, 50.0, 2.0])
        self.assertTrue(history["grad_norm"][4] != history["grad_norm"][4])
        self.assertEqual(history["loss"].tolist()[:4], [0.0, 0.5, 1.0, 1.5])
        self.assertEqual(history["decision"].tolist(), ["apply", "clip", "skip", "clip", "skip"])
        self.assertEqual(history["reason"].tolist()[2], "absolute_limit")
        self.assertEqual(history["threshold"].tolist(), [5.0] * 5)
        self.assertEqual(history["should_update"].tolist(), [True, True, False, True, False])
        self.assertAlmostEqual(history["clip_coefficient"][1], 0.5, delta=1e-6)
        self.assertEqual({len(values) for values in history.values()}, {5})

    def test_keeps_the_newest_steps(self):
        guard = self.guard(history_length=3)
        for _ in range(5):
            self.step(guard, 1.0)
        self.assertEqual(guard.history["step"].tolist(), [2, 3, 4])
        with self.assertRaisesRegex(gradwarden.Error, "history_length is -1"):
            self.guard(history_length=-1)

    def test_is_empty_before_the_first_step(self):
        guard = self.guard()
        self.assertEqual({len(values) for values in guard.history.values()}, {0})
        self.assertIsNone(guard.last)

    def test_is_no_part_of_the_state(self):
        guard = self.guard()
        before = len(json.dumps({**guard.state_dict(), "core": len(guard.state_dict()["core"])}))
        for _ in range(9):
            self.step(guard, 1.0)
        state = guard.state_dict()
        self.assertEqual(len(json.dumps({**state, "core": len(state["core"])})), before)
        fresh = self.guard()
        fresh.load_state_dict(state)
        self.assertEqual(len(fresh.history["step"]), 0)
        self.assertEqual(self.step(fresh, 1.0).step, 9)

    def test_a_state_that_is_none_is_refused_and_changes_nothing(self):
        guard = self.guard()
        self.step(guard, 1.0)
        state = guard.state_dict()
        for bad in ({}, None, {**state, "version": 99}, {**state, "core": b"nonsense"}, {**state, "core": state["core"][:-1]}):
            with self.assertRaises(gradwarden.Error):
                guard.load_state_dict(bad)
        self.assertEqual(guard.state_dict(), state)


class NeverRaisesTest(MonitoringTest):
    def test_losses_of_every_kind_are_reported_or_left_out(self):
        guard = self.guard()
        nan = self.step(guard, 1.0, loss=torch.tensor(float("nan"), dtype=torch.float16)).loss
        self.assertNotEqual(nan, nan)
        with self.quiet():
            for loss, reported in (
                (1, 1.0), (1.5, 1.5), (torch.tensor(2.5), 2.5), (torch.tensor([3.5]), 3.5), (None, None),
                (torch.tensor(1.0, requires_grad=True), 1.0), (torch.tensor(-2.5, dtype=torch.bfloat16), -2.5),
                (torch.tensor(6e-8, dtype=torch.float16), 2.0**-24), (torch.tensor(-1e300, dtype=torch.float64), -1e300),
                (torch.tensor(float("-inf")), -float("inf")), (torch.tensor(7), 7.0), (torch.ones(2), None), ("low", None), (object(), None),
                (torch.ones((), device="meta"), None), ({}, None), (1 + 2j, None),
            ):
                with self.subTest(loss=loss):
                    self.assertEqual(self.step(guard, 1.0, loss=loss).loss, reported)

    def test_a_loss_on_another_device_is_never_read(self):
        class Elsewhere(torch.Tensor):
            @property
            def device(self):
                return torch.device("cuda")

            def item(self):
                raise AssertionError("this would wait for the device")

            __float__ = item

        self.assertIsNone(self.step(self.guard(), 1.0, loss=torch.zeros(()).as_subclass(Elsewhere)).loss)

    def test_batch_ids_of_every_kind_are_reported_or_left_out(self):
        class Nameless:
            def __str__(self):
                raise ValueError("no name")

        with tempfile.TemporaryDirectory() as directory:
            history = os.path.join(directory, "history.gwh")
            guard = self.guard(run="batches", history_path=history)
            expected = []
            with self.quiet():
                for ids, reported in (
                    ("b7", ["b7"]), (7, ["7"]), (0, ["0"]), ([1, 2], ["1", "2"]), (("a", 3), ["a", "3"]), ((), []),
                    (None, []), (torch.tensor([4, 5]), ["4", "5"]), (torch.tensor(6), ["6"]), (range(2), ["0", "1"]),
                    (Nameless(), []), ([Nameless()], []), (torch.ones(2, device="meta"), []),
                ):
                    self.step(guard, 1.0, batch_ids=ids)
                    expected.append(reported)
            self.assertTrue(guard.close())
            if "GRADWARDEN_COMMAND" in os.environ:
                self.assertEqual([report.get("batch_ids", []) for report in reports_of(history)], expected)

    def test_a_learning_rate_that_is_no_number_is_left_out(self):
        optimizer = torch.optim.SGD([self.weight, self.bias], lr=0.1)
        guard = self.guard(optimizer=optimizer)
        with self.quiet():
            self.assertIsNone(self.step(guard, 1.0, learning_rate="fast").learning_rate)
            self.assertEqual(self.step(guard, 1.0).learning_rate, 0.1)

            class Rate:
                def __float__(self):
                    raise ValueError("unknown yet")

                def __mul__(self, other):
                    return 0.0

            optimizer.param_groups[0]["lr"] = Rate()
            optimizer.step = lambda: None
            self.assertIsNone(self.step(guard, 1.0).learning_rate)

    def test_a_daemon_that_is_not_there_delays_nothing(self):
        guard = self.guard(run="alone", daemon="127.0.0.1:1")
        for _ in range(50):
            self.assertEqual(self.step(guard, 1.0).decision, "apply")
        self.assertFalse(guard.close())  # within its second, and says that reports were lost

    def test_a_handler_of_the_log_that_fails_stops_nothing(self):
        class Failing(logging.Handler):
            def emit(self, record):
                raise RuntimeError("no log today")

        handler = Failing()
        logger = logging.getLogger("gradwarden")
        logger.addHandler(handler)
        try:
            self.assertEqual(self.step(self.guard(), float("nan")).decision, "skip")
        finally:
            logger.removeHandler(handler)


def reports_of(history):
    done = subprocess.run(
        [os.environ["GRADWARDEN_COMMAND"], "export", history, "--format", "jsonl"],
        check=True, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


@unittest.skipUnless("GRADWARDEN_COMMAND" in os.environ, "needs the gradwarden command line")
class FileTest(MonitoringTest):
    def test_a_local_history_is_read_by_show_and_marks_checkpoints(self):
        with tempfile.TemporaryDirectory() as directory:
            history = os.path.join(directory, "history.gwh")
            with self.quiet(), self.guard(
                run="notebook", history_path=history, skip="above-5", observe="parameters", observe_others_every=2,
            ) as guard:
                for step, value in enumerate((1.0, 2.0, 50.0, 1.0)):
                    self.step(guard, value, loss=0.25, learning_rate=0.5)
                    if step == 1:
                        guard.mark_checkpoint()
            reports = reports_of(history)
            self.assertEqual([report["step"] for report in reports], [0, 1, 2, 3])
            self.assertEqual([report["decision"] for report in reports], ["apply", "apply", "skip", "apply"])
            self.assertEqual({report["loss"] for report in reports}, {0.25})
            self.assertEqual([bool(report.get("signals")) for report in reports], [False, True, False, True])
            shown = subprocess.run(
                [os.environ["GRADWARDEN_COMMAND"], "show", history],
                check=True, capture_output=True, text=True, timeout=60).stdout
            self.assertIn("notebook", shown)
            self.check_plot(history)

    def check_plot(self, history):
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            return
        self.assertEqual(len(gradwarden.plot(history).axes[0].lines[0].get_xdata()), 4)


class PlotTest(MonitoringTest):
    def test_says_what_is_missing(self):
        guard = self.guard()
        self.step(guard, 1.0)
        before = sys.modules.get("matplotlib.figure")
        sys.modules["matplotlib.figure"] = None
        try:
            with self.assertRaisesRegex(gradwarden.Error, "needs matplotlib"):
                gradwarden.plot(guard)
        finally:
            del sys.modules["matplotlib.figure"]
            if before is not None:
                sys.modules["matplotlib.figure"] = before

    def test_draws_a_guard_and_its_history(self):
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            self.skipTest("matplotlib is not installed")
        guard = self.guard(skip="above-5")
        with self.assertRaisesRegex(gradwarden.Error, "no steps yet"):
            gradwarden.plot(guard)
        with self.quiet():
            for value in (1.0, 50.0, 2.0, float("nan")):
                self.step(guard, value, loss=1.0)
        for run in (guard, guard.history):
            figure = gradwarden.plot(run)
            norms, losses = figure.axes
            self.assertEqual(norms.lines[0].get_xdata().tolist(), [0, 1, 2, 3])
            self.assertEqual(losses.lines[0].get_ydata().tolist(), [1.0] * 4)
            self.assertEqual(len(norms.lines), 4)  # norm, limit, two skips
            figure.savefig(io.BytesIO(), format="png")
        for bad, text in (({}, "lacks decision"), (3, "run is a int"), ("nowhere.gwh", "nowhere.gwh|PATH")):
            with self.assertRaisesRegex(gradwarden.Error, text):
                gradwarden.plot(bad)


if __name__ == "__main__":
    unittest.main()
