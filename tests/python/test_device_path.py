"""Gradients in GPU memory, on the emulated GPU: the same decisions and bits of clipping as in host memory, and no wait."""

import unittest

import emulated_gpu
import torch
from emulated_gpu import on_gpu, synchronize
from ranks import RanksTest

import gradwarden

SIZES = ((7, 5), (4099,), (), (3, 3))


def parameters(seed=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    named = []
    for i, size in enumerate(SIZES):
        parameter = torch.nn.Parameter(torch.zeros(size, dtype=dtype))
        parameter.grad = on_gpu(torch.randn(size, generator=generator).to(dtype))
        named.append((f"layer{i}.weight", parameter))
    return named


def norm_of(named):
    synchronize()
    return torch.stack([p.grad.double().norm() for _, p in named if p.grad is not None]).norm().item()


class WaitingAdam(torch.optim.Adam):
    """On a real GPU the optimizer's kernels stand behind the guard's in the stream; here the step must wait instead."""

    def step(self, closure=None):
        synchronize()
        self.told = (float(self.found_inf), float(self.grad_scale))
        return super().step(closure)


class WaitingSGD(torch.optim.SGD):
    def step(self, closure=None):
        synchronize()
        return super().step(closure)


class DevicePathTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        emulated_gpu.use()

    def test_clips_in_place_as_torch_does(self):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.01), (torch.float16, 2e-3)):
            with self.subTest(dtype=dtype):
                named, theirs = parameters(dtype=dtype), parameters(dtype=dtype)
                expected = norm_of(named)
                with gradwarden.Guard(named, max_norm=0.5) as guard:
                    outcome = guard.step(loss=1.0)
                synchronize()
                torch.nn.utils.clip_grad_norm_([p for _, p in theirs], 0.5)
                self.assertEqual((outcome.decision, outcome.reason), ("clip", "max_norm"))
                self.assertAlmostEqual(outcome.grad_norm / expected, 1, delta=1e-6)
                for (_, a), (_, b) in zip(named, theirs):
                    # fp16 has steps of 6e-8 near zero.
                    torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=1e-7 if dtype == torch.float16 else 1e-12)

    def test_follows_gradients_that_move_and_that_are_missing(self):
        named = parameters()
        guard = gradwarden.Guard(named, max_norm=100.0)
        guard.step()
        for seed in (4, 5, 6):
            for (_, p), (_, fresh) in zip(named, parameters(seed)):
                p.grad = fresh.grad
            named[seed % len(named)][1].grad = None
            expected = norm_of(named)
            self.assertAlmostEqual(guard.step().grad_norm / expected, 1, delta=1e-6)
        self.assertEqual(list(guard.history["step"]), [0, 1, 2, 3])

    def test_a_nan_is_skipped_named_and_left_alone(self):
        named = parameters()
        named[1][1].grad[77] = float("nan")
        before = [p.grad.clone() for _, p in named]
        with self.assertLogs("gradwarden", "WARNING") as logged:
            guard = gradwarden.Guard(named, max_norm=0.5)
            outcome = guard.step()
        synchronize()
        self.assertEqual((outcome.decision, outcome.reason, outcome.should_update), ("skip", "non_finite", False))
        self.assertEqual([(one.tensor, one.index) for one in outcome.non_finite], [("layer1.weight", 77)])
        self.assertIn("layer1.weight", logged.output[0])
        for (_, p), old in zip(named, before):
            torch.testing.assert_close(p.grad, old, rtol=0, atol=0, equal_nan=True)

    def test_a_fused_optimizer_is_told_on_the_device_and_nothing_is_waited_for(self):
        named = parameters()
        optimizer = WaitingAdam([p for _, p in named], lr=0.1, fused=True)
        guard = gradwarden.Guard(named, optimizer, max_norm=0.5)
        raw = [p.grad.clone() for _, p in named]
        expected = norm_of(named)
        outcome = guard.step()
        self.assertIn("not asked for yet", repr(outcome))
        self.assertEqual(optimizer.told[0], 0.0)
        self.assertAlmostEqual(optimizer.told[1] / ((expected + 1e-6) / 0.5), 1, delta=1e-6)
        for (_, p), old in zip(named, raw):  # the optimizer's kernels unscale their own copy on a GPU
            self.assertTrue(torch.isfinite(p.detach()).all())
        self.assertEqual(outcome.decision, "clip")
        named[0][1].grad[0, 0] = float("inf")
        kept = [p.detach().clone() for _, p in named]
        outcome = guard.step()
        self.assertEqual(optimizer.told[0], 1.0)
        self.assertFalse(outcome.should_update)
        for (_, p), old in zip(named, kept):
            torch.testing.assert_close(p.detach(), old, rtol=0, atol=0)
        self.assertTrue(guard.close())
        self.assertEqual(list(guard.history["decision"]), ["clip", "skip"])

    def test_a_loss_on_the_device_is_read_there(self):
        guard = gradwarden.Guard(parameters())
        guard.step(loss=on_gpu(torch.tensor(2.5)))
        self.assertTrue(guard.close())
        self.assertEqual(list(guard.history["loss"]), [2.5])

    def test_state_moves_between_host_and_device(self):
        options = {"skip_above_rolling_mean": 3.0, "window": 4, "warmup": 4}
        named = parameters()
        guard = gradwarden.Guard(named, **options)
        for _ in range(5):
            self.assertTrue(guard.step().should_update)
        state = guard.state_dict()
        restored, fresh = gradwarden.Guard(named, **options), gradwarden.Guard(named, **options)
        restored.load_state_dict(state)
        synchronize()
        for _, p in named:
            p.grad.mul_(10)
        reasons = [g.step().reason for g in (restored, fresh, guard)]
        self.assertEqual(reasons, ["rolling_mean", "within_limits", "rolling_mean"])

    def test_a_scaler_hears_of_overflows_but_not_of_spikes(self):
        named = parameters()
        optimizer = torch.optim.SGD([p for _, p in named], lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
        guard = gradwarden.Guard(named, optimizer, skip="above-1000")
        scaler.scale(torch.ones(()))
        expected = norm_of(named) / 8
        self.assertAlmostEqual(guard.step(scaler=scaler).grad_norm / expected, 1, delta=1e-6)
        scaler.update()
        self.assertEqual(scaler.get_scale(), 16.0)
        synchronize()
        named[0][1].grad.mul_(1e7)
        self.assertEqual(guard.step(scaler=scaler).decision, "skip")
        scaler.update()
        self.assertEqual(scaler.get_scale(), 32.0)
        named[0][1].grad[1, 1] = float("inf")
        self.assertEqual(guard.step(scaler=scaler).decision, "skip")
        scaler.update()
        self.assertEqual(scaler.get_scale(), 16.0)


    def test_a_fused_optimizer_with_a_scaler_steps_by_gradients_unscaled_and_clipped(self):
        for options in ({}, {"on_spike": "reduce_learning_rate", "skip": "above-1000"}):
            with self.subTest(**options):
                named, theirs = parameters(), parameters()
                optimizer = torch.optim.SGD([p for _, p in named], lr=0.1, fused=True)
                scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
                scaler.scale(torch.ones(()))
                guard = gradwarden.Guard(named, optimizer, max_norm=0.5, **options)
                outcome = guard.step(scaler=scaler)
                self.assertEqual(outcome.decision, "clip")
                for _, p in theirs:
                    p.grad = p.grad.clone() / 8
                torch.nn.utils.clip_grad_norm_([p for _, p in theirs], 0.5)
                torch.optim.SGD([p for _, p in theirs], lr=0.1).step()
                for (_, a), (_, b) in zip(named, theirs):
                    torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-9)

    def test_a_reduced_learning_rate_does_not_keep_a_fused_optimizer_from_clipping(self):
        named, theirs = parameters(), parameters()
        optimizer = torch.optim.SGD([p for _, p in named], lr=0.1, fused=True)
        guard = gradwarden.Guard(named, optimizer, max_norm=0.5, on_spike="reduce_learning_rate", skip="above-1000")
        self.assertEqual(guard.step().decision, "clip")
        torch.nn.utils.clip_grad_norm_([p for _, p in theirs], 0.5)
        torch.optim.SGD([p for _, p in theirs], lr=0.1).step()
        for (_, a), (_, b) in zip(named, theirs):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-9)

    def test_what_clips_each_tensor_by_itself_works_with_a_fused_optimizer(self):
        for options in (
            {"value_limit": 0.25},
            {"adaptive_clip": 0.01},
            {"group_rules": [gradwarden.GroupRule("*", max_norm=0.1)]},
        ):
            with self.subTest(**options):
                moved = []
                for fused in (True, False):
                    named = parameters()
                    for _, p in named:
                        p.data = on_gpu(torch.ones_like(p))
                    optimizer = WaitingSGD([p for _, p in named], lr=0.1, fused=fused)
                    guard = gradwarden.Guard(named, optimizer, **options)
                    self.assertTrue(guard.step().should_update)
                    self.assertTrue(guard.close())
                    moved.append([p.detach().clone() for _, p in named])
                for a, b in zip(*moved):
                    torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
                self.assertFalse(torch.equal(moved[0][0], torch.ones_like(moved[0][0])))

    def test_a_skip_in_the_first_step_leaves_a_fused_momentum_as_if_it_had_not_been(self):
        named, fresh = parameters(), parameters()
        optimizer = torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9, fused=True)
        guard = gradwarden.Guard(named, optimizer)
        kept = named[1][1].grad[5].item()
        named[1][1].grad[5] = float("nan")
        self.assertEqual(guard.step().decision, "skip")
        self.assertEqual(len(optimizer.state), 0)
        named[1][1].grad[5] = kept
        self.assertTrue(guard.step().should_update)
        torch.optim.SGD([p for _, p in fresh], lr=0.1, momentum=0.9).step()
        for (_, a), (_, b) in zip(named, fresh):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-6, atol=0)

    def test_an_overflow_after_the_callers_own_unscaling_is_the_scalers(self):
        named = parameters()
        optimizer = torch.optim.SGD([p for _, p in named], lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(torch.ones(()))
        guard = gradwarden.Guard(named, optimizer)
        named[0][1].grad[1, 1] = float("inf")
        scaler.unscale_(optimizer)
        self.assertEqual(guard.step(scaler=scaler).reason, "loss_scale_overflow")
        scaler.update()
        self.assertEqual(scaler.get_scale(), 4.0)

    def test_parameters_that_move_are_read_where_they_are(self):
        weight = torch.nn.Parameter(on_gpu(torch.ones(4)))
        weight.grad = on_gpu(torch.full((4,), 50.0))
        guard = gradwarden.Guard([("w", weight)], adaptive_clip=0.5)
        for scale in (1.0, 10.0, 3.0):
            weight.data = on_gpu(torch.full((4,), scale))
            synchronize()
            weight.grad.fill_(50.0)
            self.assertEqual(guard.step().clipped_tensors, 1)
            synchronize()
            self.assertAlmostEqual(weight.grad.norm().item(), 0.5 * 2.0 * scale, delta=1e-4)

    def test_an_optimizer_that_is_fused_no_longer_is_told_otherwise(self):
        named = parameters()
        optimizer = torch.optim.Adam([p for _, p in named], lr=0.1, fused=True)
        guard = gradwarden.Guard(named, optimizer, max_norm=0.5)
        self.assertEqual(guard.step().decision, "clip")
        synchronize()
        unfused = torch.optim.Adam([p for _, p in parameters()], lr=0.1, fused=False)
        optimizer.load_state_dict({"state": {}, "param_groups": unfused.state_dict()["param_groups"]})
        for (_, p), (_, fresh) in zip(named, parameters(4)):
            p.grad = fresh.grad
        self.assertEqual(guard.step().decision, "clip")
        synchronize()
        self.assertAlmostEqual(norm_of(named), 0.5, delta=1e-5)


def on_two_ranks(rank, world, _):
    emulated_gpu.use()
    named = parameters()
    whole = named[1][1].grad.clone()
    half = (whole.numel() + rank) // 2
    begin = 0 if rank == 0 else whole.numel() - half
    part = torch.nn.Parameter(torch.zeros(half))
    part.grad = on_gpu(whole[begin : begin + half])
    layout = {"layer1.weight": gradwarden.Shard(whole=whole.numel(), start=begin)}
    mine = [(name, part if name == "layer1.weight" else p) for name, p in named]
    expected = norm_of(named)
    guard = gradwarden.Guard(mine, max_norm=0.5, layout=layout)
    outcomes = [guard.step() for _ in range(3)]
    synchronize()
    return outcomes[0].grad_norm / expected, [o.decision for o in outcomes], guard.close()


class DevicePathOfSeveralRanksTest(RanksTest):
    def test_shards_on_two_gpus_have_the_norm_of_the_whole(self):
        for ratio, decisions, whole in self.run_ranks(2, on_two_ranks, None):
            self.assertAlmostEqual(ratio, 1, delta=1e-6)
            self.assertEqual(decisions[0], "clip")
            self.assertTrue(whole)


if __name__ == "__main__":
    unittest.main()
