"""The examples do what they say: each is run as its first lines tell."""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import torch

from gradwarden._intercept import Intercepted

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "client" / "python" / "examples"


def run(name, *arguments, ranks=0):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [sys.executable, "-B", *launcher, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=600, env=environment
    )
    if ended.returncode != 0:
        raise AssertionError(f"{name} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout.strip().splitlines()[-1]


class ExamplesTest(unittest.TestCase):
    def test_a_plain_loop_skips_the_broken_batch_and_learns(self):
        match = re.fullmatch(r"last loss ([\d.]+), skipped \[40\]", run("plain_loop.py"))
        self.assertIsNotNone(match)
        self.assertLess(float(match[1]), 2.0)

    def test_four_ddp_ranks_skip_a_nan_and_name_the_rank_where_it_was_born(self):
        self.assertEqual(run("ddp.py", ranks=4), "skipped [(30, 'non_finite', [3])]")

    def test_four_fsdp2_ranks_skip_a_spike_by_the_norm_of_the_whole_model(self):
        self.assertEqual(run("fsdp2.py", ranks=4), "skipped [(30, 'rolling_mean')]")

    def test_a_gpt_on_four_ranks_skips_each_fault_in_its_step_and_learns(self):
        result = json.loads(run("gpt_faults.py", "--steps", "120", "--text", str(EXAMPLES / "gpt_faults.py"), ranks=4))
        skipped = result["skipped"]
        self.assertEqual(skipped[:2], [[40, "rolling_mean", []], [60, "non_finite", [1]]])
        self.assertTrue(all(step > 80 for step, _, _ in skipped[2:]), skipped)  # after the rate that was wrong
        self.assertLess(result["held_out_loss"], 4.5)  # 5.5 at first


class InterceptTest(unittest.TestCase):
    """What the callbacks of trainers stand on."""

    def setUp(self):
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.5)
        self.seen = []

    def act(self, original, loss):
        self.seen.append(loss)
        if loss is None or loss < 10:
            self.optimizer.step()  # as the guard does: it goes through to the step that was there

    def closure(self, loss):
        def run():
            self.weight.grad = torch.ones(1)
            self.assertTrue(torch.is_grad_enabled())
            return loss

        return run

    def test_runs_after_the_closure_in_the_place_of_the_step(self):
        Intercepted(self.optimizer, self.act)
        with torch.no_grad():
            self.assertEqual(self.optimizer.step(self.closure(3)), 3)
        self.assertEqual((self.seen, self.weight.item()), ([3], 0.5))
        self.assertEqual(self.optimizer.step(closure=self.closure(30)), 30)
        self.assertEqual((self.seen, self.weight.item()), ([3, 30], 0.5))
        self.optimizer.step()
        self.assertEqual((self.seen, self.weight.item()), ([3, 30, None], 0.0))

    def test_undone_leaves_the_step_that_was_there(self):
        for wrap in (lambda: None, lambda: torch.optim.lr_scheduler.StepLR(self.optimizer, 1)):
            wrap()
            before = self.optimizer.step
            intercepted = Intercepted(self.optimizer, self.act)
            self.assertNotEqual(self.optimizer.step, before)
            intercepted.undo()
            self.assertEqual(self.optimizer.step, before)

    def test_a_step_that_another_put_over_it_stays(self):
        intercepted = Intercepted(self.optimizer, self.act)
        self.optimizer.step = other = lambda: None
        intercepted.undo()
        self.assertIs(self.optimizer.step, other)


if __name__ == "__main__":
    unittest.main()
