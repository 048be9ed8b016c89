"""The communication hook under DistributedDataParallel: what it observes, and that it changes nothing else."""

import copy
import json
import logging
import os
import subprocess
import tempfile
import threading
import types
import unittest
import unittest.mock

import torch
from ranks import RanksTest
from torch.nn.parallel import DistributedDataParallel

import gradwarden

STEPS = 5
MAX_NORM = 0.05  # below the norms here, so that steps are clipped


class Network(torch.nn.Module):
    def __init__(self, unused=False):
        super().__init__()
        self.first = torch.nn.Linear(12, 40)
        self.second = torch.nn.Linear(40, 40)
        self.last = torch.nn.Linear(40, 3)
        if unused:
            self.never = torch.nn.Linear(5, 5)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def batch(rank, step):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(8, 12, generator=generator) * (1 + rank)


def gradients(module):
    return {name: p.grad.detach().clone() for name, p in module.named_parameters() if p.grad is not None}


def addresses(module):
    return {name: p.grad.data_ptr() for name, p in module.named_parameters() if p.grad is not None}


def norm_of(tensors):
    return torch.stack([t.double().norm() for t in tensors]).norm().item()


def backward(module, x):
    loss = module(x).square().mean()
    loss.backward()
    return loss


def load(module, state):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[name])


def note_who_sets_futures():
    """The names of the threads that set a future's result from now on."""
    names = []
    set_result = torch.futures.Future.set_result

    def noting(future, result):
        names.append(threading.current_thread().name)
        set_result(future, result)

    torch.futures.Future.set_result = noting
    return names


def train(rank, world, history, *, views=True, set_to_none=True, unused=False, nan_at=None, accumulate=1, **options):
    """Trains beside two references: this rank's network alone, and DDP without a hook. What was seen, by step."""
    torch.manual_seed(7)
    network = Network(unused)
    arguments = {"bucket_cap_mb": 0.005, "gradient_as_bucket_view": views, "find_unused_parameters": unused}
    model = DistributedDataParallel(network, **arguments)
    plain = DistributedDataParallel(copy.deepcopy(network), **arguments)
    alone = copy.deepcopy(network)
    guard = gradwarden.Guard(max_norm=MAX_NORM, run="ddp", history_path=history if rank == 0 else "", **options)
    guard.bind(network.named_parameters())
    hook = gradwarden.ddp.observe_local_hook(guard)
    buckets = []  # one for each call of the hook

    def counting(state: object, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        buckets.append(bucket.index())
        return hook(state, bucket)

    model.register_comm_hook(None, counting)
    setters = note_who_sets_futures()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seen = []
    for step in range(STEPS):
        for module in (model, plain, alone):
            module.zero_grad(set_to_none=set_to_none)
        for part in range(accumulate):
            x = batch(rank, step * accumulate + part)
            if step == nan_at and rank == 1:
                x[2, 3] = float("nan")
            backward(alone, x)
            if part + 1 < accumulate:
                with model.no_sync(), plain.no_sync():
                    backward(model, x), backward(plain, x)
            else:
                backward(plain, x)
                loss = backward(model, x)
        mean = gradients(network)
        expected = gradients(plain.module)
        local = norm_of(gradients(alone).values())
        before = copy.deepcopy(network.state_dict())
        places = addresses(network)
        outcome = guard.step(step=step, loss=loss)
        in_place = places == addresses(network)
        total = torch.nn.utils.clip_grad_norm_(plain.parameters(), MAX_NORM).item()
        if outcome.should_update:
            optimizer.step()
        after = {name: p.detach().clone() for name, p in network.named_parameters()}
        seen.append(
            {
                "local_norm": local,
                "same_mean": mean.keys() == expected.keys()
                and all(mean[name].numpy().tobytes() == expected[name].numpy().tobytes() for name in mean),
                "norms": (outcome.grad_norm, total),
                "clipped": [(gradients(network)[name], gradients(plain.module)[name]) for name in expected],
                "decision": (outcome.decision, outcome.reason, outcome.should_update),
                "in_place": in_place,
                "moved": any(not torch.equal(before[name], after[name]) for name in after),
            }
        )
        load(plain, {f"module.{name}": value for name, value in after.items()})
        load(alone, after)
    return {"steps": seen, "buckets": len(set(buckets)), "hook_calls": len(buckets), "flushed": guard.close(), "setters": setters}


def train_case(rank, world, history, arguments):
    return train(rank, world, history, **arguments)


def reports_of(history):
    lines = subprocess.run(
        [os.environ["GRADWARDEN_COMMAND"], "export", history, "--format", "jsonl"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()
    return [json.loads(line) for line in lines]


@unittest.skipUnless("GRADWARDEN_COMMAND" in os.environ, "needs the gradwarden command line")
class DdpHookTest(RanksTest):
    def train(self, world, **arguments):
        with tempfile.TemporaryDirectory() as directory:
            history = os.path.join(directory, "history.gwh")
            results = self.run_ranks(world, train_case, history, arguments)
            reports = reports_of(history)
        self.assertEqual([report["step"] for report in reports], list(range(STEPS)))
        for result in results:
            self.assertGreater(result["buckets"], 1)
            self.assertTrue(result["flushed"])
            # A thread of the process group that runs Python while the interpreter ends would abort the process.
            self.assertEqual(set(result["setters"]), {"MainThread"})
            self.assertEqual(len(result["setters"]), result["hook_calls"])
        return results, reports

    def check_healthy(self, world, **arguments):
        results, reports = self.train(world, **arguments)
        for step, report in enumerate(reports):
            ranks = [result["steps"][step] for result in results]
            self.assertEqual(len(report["local_norms"]), world)
            for mine, reported in zip(ranks, report["local_norms"]):
                self.assertAlmostEqual(reported / mine["local_norm"], 1, delta=1e-6)
            # The ranks' inputs differ, so that a norm of the mean in place of the ranks' own would show.
            self.assertGreater(abs(report["local_norms"][-1] / report["local_norms"][0] - 1), 1e-3)
            for mine in ranks:
                self.check_reduction(mine)
                self.assertEqual(mine["decision"], ("clip", "max_norm", True))
                self.assertTrue(mine["moved"])
                self.assertTrue(mine["in_place"])  # the guard reads and clips DDP's own memory

    def check_reduction(self, mine):
        self.assertTrue(mine["same_mean"])
        self.assertAlmostEqual(mine["norms"][0] / mine["norms"][1], 1, delta=1e-6)
        for clipped, expected in mine["clipped"]:
            torch.testing.assert_close(clipped, expected, rtol=1e-6, atol=1e-12)

    def test_two_ranks_report_the_norm_of_their_own_gradients_and_reduce_as_without_a_hook(self):
        self.check_healthy(2)

    def test_three_ranks_report_the_norm_of_their_own_gradients_and_reduce_as_without_a_hook(self):
        self.check_healthy(3)

    def test_gradients_that_are_not_views_of_the_buckets_are_clipped_alike(self):
        self.check_healthy(3, views=False)

    def test_gradients_that_keep_their_memory_are_clipped_alike(self):
        self.check_healthy(2, set_to_none=False)

    def test_accumulated_gradients_are_observed_once_they_are_whole(self):
        self.check_healthy(2, accumulate=3)

    def test_a_layer_that_is_never_used_keeps_no_gradient(self):
        self.check_healthy(2, unused=True)

    def test_a_nan_in_the_input_of_one_rank_is_born_on_that_rank(self):
        results, reports = self.train(2, nan_at=3)
        for step, report in enumerate(reports):
            born = {entry["rank"] for entry in report.get("non_finite", []) if entry["local"]}
            self.assertEqual(born, {1} if step == 3 else set())
        self.assertEqual(reports[3]["local_non_finite_counts"][0], 0)
        self.assertGreater(reports[3]["local_non_finite_counts"][1], 0)
        for result in results:
            self.assertEqual(result["steps"][3]["decision"], ("skip", "non_finite", False))
            self.assertFalse(result["steps"][3]["moved"])
            self.assertEqual(result["steps"][4]["decision"], ("clip", "max_norm", True))
            self.check_reduction(result["steps"][4])

    def test_with_local_every_the_steps_between_are_not_observed_and_reduce_alike(self):
        results, reports = self.train(2, local_every=2)
        # Bound in the first two backward passes; counted from the second.
        self.assertEqual(["local_norms" in report for report in reports], [True, True, False, True, False])
        for step in range(STEPS):
            for result in results:
                self.check_reduction(result["steps"][step])
            if "local_norms" in reports[step]:
                for reported, result in zip(reports[step]["local_norms"], results):
                    self.assertAlmostEqual(reported / result["steps"][step]["local_norm"], 1, delta=1e-6)


class FutureTest(unittest.TestCase):
    def test_the_future_of_a_bucket_on_a_gpu_is_one_of_that_gpu(self):
        for device, devices in ((torch.device("cuda", 1), [torch.device("cuda", 1)]), (torch.device("cpu"), None)):
            with self.subTest(device=device), unittest.mock.patch("torch.futures.Future") as future:
                buffer = types.SimpleNamespace(device=device, is_cuda=device.type == "cuda")
                bucket = types.SimpleNamespace(index=lambda: 0, is_last=lambda: False, buffer=lambda: buffer)
                gradwarden.ddp.observe_local_hook(None)(object(), bucket)
                future.assert_called_once_with(devices=devices)


if __name__ == "__main__":
    logging.basicConfig()
    unittest.main()
