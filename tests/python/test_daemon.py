"""A guarded loop and a gradwardend: what it was told."""

import json
import logging
import os
import subprocess
import tempfile
import time
import unittest

import torch

import gradwarden

DEADLINE_S = 60


def ask(*arguments):
    return subprocess.run(
        [os.environ["GRADWARDEN_COMMAND"], *arguments], check=True, capture_output=True, text=True, timeout=DEADLINE_S
    ).stdout


def reports_of(run, address):
    """How many reports of the run are stored; 0 also while the daemon does not know it yet."""
    try:
        shown = ask("show", run, "--daemon", address, "--json")
    except subprocess.CalledProcessError:
        return 0
    return int(json.loads(shown)["summary"].get("reports", 0))


@unittest.skipUnless("GRADWARDEND" in os.environ, "needs gradwardend")
class DaemonTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        ports = os.path.join(directory.name, "ports.json")
        self.daemon = subprocess.Popen(
            [os.environ["GRADWARDEND"], "--data-dir", os.path.join(directory.name, "data"), "--grpc-listen", "127.0.0.1:0",
             "--http-listen", "127.0.0.1:0", "--ports-file", ports, "--log-level", "error"])
        self.addCleanup(self.end)
        deadline = time.monotonic() + DEADLINE_S
        while not (os.path.exists(ports) and os.path.getsize(ports)):
            self.assertLess(time.monotonic(), deadline, "gradwardend did not become ready")
            self.assertIsNone(self.daemon.poll())
            time.sleep(0.02)
        with open(ports, encoding="utf-8") as file:
            self.address = f"127.0.0.1:{json.load(file)['grpc']}"

    def end(self):
        self.daemon.terminate()
        self.assertEqual(self.daemon.wait(DEADLINE_S), 0)

    def train(self):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        with gradwarden.Guard(
            model, optimizer, max_norm=1.0, skip="3x-rolling-mean", warmup=5, run="loop", daemon=self.address
        ) as guard:
            for step in range(60):
                optimizer.zero_grad()
                loss = model(torch.randn(16, 8) * (200 if step == 40 else 1)).square().mean()
                (loss * (1000 if step == 40 else 1)).backward()
                if step == 50:
                    model[0].weight.grad[1, 1] = float("nan")
                guard.step(loss=loss, batch_ids=[f"shard-{step}"])
                if step == 30:
                    guard.mark_checkpoint()
            history = guard.history
            # close() waits a second and no more: on a slow machine only the goodbye is to be left for it.
            deadline = time.monotonic() + DEADLINE_S
            while (stored := reports_of("loop", self.address)) < 60:
                self.assertLess(time.monotonic(), deadline, f"only {stored} of 60 reports are stored")
                time.sleep(0.05)
            self.assertTrue(guard.close())
        return history

    def test_gets_every_step_once_with_what_the_guard_decided(self):
        logging.getLogger("gradwarden").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("gradwarden").setLevel, logging.NOTSET)
        history = self.train()
        self.assertEqual([history["decision"][i] for i in (40, 50)], ["skip", "skip"])
        lines = ask("export", "loop", "--daemon", self.address, "--format", "jsonl").splitlines()
        reports = [json.loads(line) for line in lines]
        self.assertEqual([report["step"] for report in reports], list(range(60)))
        self.assertEqual([report["decision"] for report in reports], history["decision"].tolist())
        self.assertEqual(reports[7]["batch_ids"], ["shard-7"])
        self.assertAlmostEqual(reports[7]["learning_rate"], 1e-3, delta=1e-12)
        self.assertEqual(reports[50]["non_finite"][0]["tensor"], "0.weight")
        for report, norm in zip(reports, history["grad_norm"]):
            if report["step"] != 50:
                self.assertEqual(report["grad_norm"], norm)
        self.assertRegex(ask("runs", "--daemon", self.address), r"loop .*\b59\b.*finished")


if __name__ == "__main__":
    unittest.main()
