"""Gradients read and scaled by torch operations, as on devices without kernels here, held against the kernels' path.

There is no such device here: the tensors are in host memory, and a switch inside the package sends them that way.
"""

import contextlib
import math
import unittest
from unittest import mock

import layouts
import networks
import torch
from ranks import ManyRanksTest
from torch.nn.parallel import DistributedDataParallel

import gradwarden
from gradwarden import _torch_path

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
STEPS = 4


@contextlib.contextmanager
def through_torch():
    with mock.patch.object(_torch_path, "_FORCED", True):
        yield


def row_of(tensor, norm_type=2.0, single=None):
    return _torch_path.read([tensor.flatten()], norm_type, single=single)[0].tolist()


def expected_row(tensor, norm_type=2.0):
    """In exact sums of float64 powers."""
    numbers = tensor.double().flatten().tolist()
    finite = [abs(x) for x in numbers if math.isfinite(x)]
    power = 0.0 if math.isinf(norm_type) else math.fsum(x**norm_type for x in finite)
    nan, bad = sum(map(math.isnan, numbers)), len(numbers) - len(finite)
    first = next((i for i, x in enumerate(numbers) if not math.isfinite(x)), -1)
    return [power, max(finite, default=0.0), nan, bad - nan, finite.count(0.0), first]


def random_of(dtype, scale=1.0, count=9000, seed=5):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(count, generator=generator, dtype=torch.float64) * scale
    tensor[::7] = 0
    return tensor.to(dtype)


class ReadTest(unittest.TestCase):
    def check(self, tensor, norm_type=2.0, tolerance=1e-12):
        expected = expected_row(tensor, norm_type)
        for single in (False, True) if tensor.dtype != torch.float64 else (False,):
            with self.subTest(dtype=tensor.dtype, single=single, norm_type=norm_type):
                found = row_of(tensor, norm_type, single)
                self.assertEqual(found[1:], expected[1:])
                self.assertLessEqual(abs(found[0] - expected[0]), (1e-6 if single else tolerance) * expected[0])

    def test_statistics_of_each_dtype_are_those_of_exact_sums(self):
        for dtype in DTYPES:
            for norm_type in (1.0, 2.0, 3.0, math.inf):
                self.check(random_of(dtype), norm_type)

    def test_values_at_both_ends_of_float32_keep_their_norm(self):
        for scale in (1e-44, 1e-30, 1e30, 3e37):
            self.check(random_of(torch.float32, scale))
        self.check(torch.full((5,), torch.finfo(torch.float32).max))
        self.check(torch.tensor([1e-45, 0.0]))

    def test_what_is_not_finite_is_counted_and_left_out(self):
        for dtype in DTYPES:
            spoiled = random_of(dtype)
            spoiled[[40, 500]] = math.nan
            spoiled[[33, 700, 701]] = torch.tensor([math.inf, -math.inf, math.inf], dtype=dtype)
            self.check(spoiled)
            self.check(spoiled, math.inf)
        self.check(torch.tensor([math.nan]))
        self.check(torch.tensor([0.0, -math.inf]))

    def test_empty_tensors_and_zeros_have_no_norm(self):
        self.check(torch.zeros(5))
        self.check(torch.zeros(0))


class ScaleTest(unittest.TestCase):
    def test_factors_that_no_float32_holds_are_applied_in_two(self):
        for factor in (1e-42, 2.0**-140, 3e-39):
            tensor = torch.tensor([1e30, -2e25, 0.0, 3e37])
            expected = (tensor.double() * factor).float()
            _torch_path.scale([tensor], [(factor, 0.0)])
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=0)


class GuardTest(unittest.TestCase):
    """Two guards of the same gradients, of which one goes through torch operations."""

    def both(self, gradients, guard_options=None, **step):
        ends = []
        for path in (contextlib.nullcontext, through_torch):
            named = [(f"layer{i}.w", torch.nn.Parameter(torch.zeros_like(g))) for i, g in enumerate(gradients)]
            with path():
                guard = gradwarden.Guard(named, **(guard_options or {}))
                outcomes = []
                for n in range(STEPS):
                    for (_, p), g in zip(named, gradients):
                        p.grad = g.clone() * (n + 1)
                    outcomes.append(guard.step(**step))
                self.assertIs(isinstance(guard._follower, _torch_path.TorchPath), path is through_torch)
            ends.append((outcomes, [p.grad for _, p in named]))
        (mine, left), (theirs, right) = ends
        for a, b in zip(mine, theirs):
            names = ("decision", "reason", "clipped_groups", "nan_count", "inf_count", "max_abs", "grad_scale")
            self.assertEqual([getattr(a, name) for name in names], [getattr(b, name) for name in names])
            where = [[(f.tensor, f.index, f.nan_count, f.inf_count) for f in o.non_finite] for o in (a, b)]
            self.assertEqual(*where)
            self.assertTrue(a.nan_count + a.inf_count or abs(b.grad_norm / a.grad_norm - 1) < 1e-12)
        for a, b in zip(left, right):
            torch.testing.assert_close(a, b, rtol=1e-6 if a.dtype.itemsize >= 4 else 1e-2, atol=0, equal_nan=True)
        return mine, left

    def gradients(self, dtype=torch.float32):
        return [random_of(dtype, count=count, seed=count) for count in (700, 33, 1, 0)]

    def test_clips_each_dtype_alike(self):
        for dtype in DTYPES:
            mine, _ = self.both(self.gradients(dtype), {"max_norm": 0.5})
            self.assertEqual([o.decision for o in mine], ["clip"] * STEPS)

    def test_groups_values_and_loss_scales_are_handled_alike(self):
        rules = [gradwarden.GroupRule("layer1", max_norm=0.1), gradwarden.GroupRule("layer0", value_limit=0.02)]
        for options in ({}, {"norm_type": 1.0}, {"norm_type": math.inf}, {"shadow": True}):
            self.both(self.gradients(), {"max_norm": 2.0, "group_rules": rules, **options}, loss_scale=4.0)

    def test_a_nan_is_skipped_and_named_alike(self):
        gradients = self.gradients()
        gradients[1][20] = math.nan
        gradients[0][[5, 9]] = -math.inf
        mine, left = self.both(gradients, {"max_norm": 0.5})
        self.assertEqual([o.reason for o in mine], ["non_finite"] * STEPS)
        torch.testing.assert_close(left[1], gradients[1] * STEPS, rtol=0, atol=0, equal_nan=True)

    def test_a_tensor_without_a_gradient_counts_as_zeros_and_keeps_none(self):
        with through_torch():
            named = [(name, torch.nn.Parameter(torch.zeros(3))) for name in "ab"]
            named[0][1].grad = torch.full((3,), 2.0)
            self.assertAlmostEqual(gradwarden.Guard(named, max_norm=1).step().grad_norm, 12**0.5, delta=1e-12)
            self.assertIsNone(named[1][1].grad)

    def test_a_fused_optimizer_divides_and_skips_alike(self):
        ends = []
        for path in (contextlib.nullcontext, through_torch):
            with path():
                parameter = torch.nn.Parameter(torch.ones(50))
                optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
                guard = gradwarden.Guard([("p", parameter)], optimizer, max_norm=0.5)
                for n in range(4):
                    parameter.grad = random_of(torch.float32, count=50, seed=n)
                    parameter.grad[0] = math.nan if n == 2 else 1
                    guard.step()
                ends.append(parameter.detach())
        torch.testing.assert_close(*ends, rtol=1e-6, atol=0)

    def test_statistics_of_parameters_are_refused(self):
        with through_torch():
            parameter = torch.nn.Parameter(torch.ones(3))
            parameter.grad = torch.ones(3)
            guard = gradwarden.Guard([("p", parameter)], observe="parameters")
            with self.assertRaisesRegex(gradwarden.Error, "in host memory"):
                guard.step()

    def test_gradients_that_changed_their_size_are_refused_or_bound_again(self):
        with through_torch():
            named = [("p", torch.nn.Parameter(torch.ones(3)))]
            named[0][1].grad = torch.ones(3)
            guard = gradwarden.Guard(named)
            guard.step()
            named[0][1].data = torch.ones(5)
            named[0][1].grad = torch.full((5,), 2.0)
            self.assertAlmostEqual(guard.step().grad_norm, 20**0.5, delta=1e-12)


def sharded(rank, world, name):
    """Norms and whole parameters of both paths."""
    ends = []
    for path in (contextlib.nullcontext, through_torch):
        with path():
            layout = layouts.LAYOUTS[name][0](rank, world, torch.float64)
            guard = gradwarden.Guard(layout.tensors, layout.optimizer, max_norm=0.25, **layout.hints)
            norms = []
            for step in range(2):
                layout.backward(networks.tokens(step))
                norms.append(guard.step().grad_norm)
                layout.optimizer.zero_grad()
            ends.append((norms, layout.parameters()))
    (norms, whole), (other_norms, other_whole) = ends
    return norms, other_norms, max((whole[n] - other_whole[n]).abs().max().item() for n in whole)


def hooked(rank, world):
    """Under DDP's hook: no warning, and the same norms as without."""
    norms = []
    for path in (contextlib.nullcontext, through_torch):
        with path(), mock.patch("gradwarden.ddp._log.warning") as warned:
            model = DistributedDataParallel(networks.network(torch.float64), gradient_as_bucket_view=True)
            guard = gradwarden.Guard(model, max_norm=0.25)
            model.register_comm_hook(None, gradwarden.ddp.observe_local_hook(guard))
            for step in range(4):
                networks.loss_of(model, networks.part(networks.tokens(step), rank, world)).backward()
                norms.append(guard.step().grad_norm)
                model.zero_grad()
            norms.append(warned.call_count)
    return norms[: len(norms) // 2], norms[len(norms) // 2 :]


SHARDED = ("DDP", "FSDP1, flat parameters", "FSDP2 + TP 2 x 2, sequence parallel", "other placements 2 x 2")


class ShardedTest(ManyRanksTest):
    CASES = {2: [(hooked,)], 4: [(sharded, name) for name in SHARDED]}

    def test_sharded_gradients_are_handled_alike(self):
        for name in SHARDED:
            for norms, others, difference in self.of_ranks(4, sharded, name):
                for a, b in zip(norms, others):
                    self.assertAlmostEqual(a / b, 1, delta=1e-12)
                self.assertLess(difference, 1e-12)

    def test_gradients_before_the_reduction_are_observed(self):
        for norms, others in self.of_ranks(2, hooked):
            self.assertEqual((norms[-1], others[-1]), (0, 0))
            for a, b in zip(norms[:-1], others[:-1]):
                self.assertAlmostEqual(a / b, 1, delta=1e-12)


if __name__ == "__main__":
    unittest.main()
