"""The guard in Python: what it clips, what it refuses, and what it keeps."""

import unittest

import torch
from ranks import RanksTest

import gradwarden


def parameters(dtype=torch.float32, seed=3, sizes=((7, 5), (11,), ())):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, size in enumerate(sizes):
        parameter = torch.nn.Parameter(torch.zeros(size, dtype=dtype))
        parameter.grad = torch.randn(size, generator=generator).to(dtype)
        made.append((f"layer{i}.weight", parameter))
    return made


def norm_of(named):
    return torch.stack([p.grad.double().norm() for _, p in named]).norm().item()


def guard_of(named, **options):
    guard = gradwarden.Guard(**options)
    guard.bind(named)
    return guard


class GuardTest(unittest.TestCase):
    def refused(self, text, function, *arguments, **keywords):
        with self.assertRaisesRegex(gradwarden.Error, text):
            function(*arguments, **keywords)

    def test_clips_each_dtype_as_torch_does(self):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-6), (torch.bfloat16, 0.01), (torch.float16, 2e-3)):
            with self.subTest(dtype=dtype):
                mine, theirs = parameters(dtype), parameters(dtype)
                expected = norm_of(mine)
                outcome = guard_of(mine, max_norm=0.5).step(loss=1.0)
                torch.nn.utils.clip_grad_norm_([p for _, p in theirs], 0.5)
                self.assertEqual((outcome.decision, outcome.reason), ("clip", "max_norm"))
                self.assertAlmostEqual(outcome.grad_norm / expected, 1, delta=1e-6)
                self.assertAlmostEqual(outcome.clip_coefficient * (expected + 1e-6) / 0.5, 1, delta=1e-6)
                for (_, a), (_, b) in zip(mine, theirs):
                    torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=1e-12)

    def test_follows_gradients_whose_memory_moves(self):
        named = parameters()
        guard = guard_of(named, max_norm=0.5)
        guard.step()
        for seed in (4, 5):
            kept = [p.grad for _, p in named]  # so that the new ones cannot have the old ones' memory
            for (_, p), (_, fresh) in zip(named, parameters(seed=seed)):
                p.grad = fresh.grad.clone()
            expected = norm_of(named)
            self.assertAlmostEqual(guard.step().grad_norm / expected, 1, delta=1e-6)
            self.assertAlmostEqual(norm_of(named), 0.5, delta=1e-5)
            self.assertEqual(len(kept), len(named))

    def test_a_parameter_without_a_gradient_counts_as_zeros_and_keeps_none(self):
        named = parameters()
        guard = guard_of(named)
        guard.step()
        named[0][1].grad = None
        expected = norm_of(named[1:])
        self.assertAlmostEqual(guard.step().grad_norm / expected, 1, delta=1e-6)
        self.assertIsNone(named[0][1].grad)

    def test_skips_a_nan_and_leaves_it_untouched(self):
        named = parameters()
        named[0][1].grad[2, 3] = float("nan")
        before = [p.grad.clone() for _, p in named]
        outcome = guard_of(named, max_norm=0.5).step()
        self.assertEqual((outcome.decision, outcome.reason, outcome.should_update), ("skip", "non_finite", False))
        for (_, p), old in zip(named, before):
            torch.testing.assert_close(p.grad, old, rtol=0, atol=0, equal_nan=True)

    def test_groups_are_modules(self):
        named = parameters()
        first = named[0][1].grad.norm().item()
        rule = gradwarden.GroupRule("layer0", max_norm=0.25)
        outcome = guard_of(named, group_rules=[rule]).step()
        self.assertEqual((outcome.decision, outcome.reason, outcome.clipped_groups), ("clip", "group_max_norm", 1))
        self.assertGreater(first, 0.25)
        self.assertAlmostEqual(named[0][1].grad.norm().item(), 0.25, delta=1e-5)

    def test_a_restored_guard_decides_as_the_saved_one(self):
        options = {"skip_above_rolling_mean": 3.0, "window": 4, "warmup": 4}
        named = parameters()
        guard = guard_of(named, **options)
        for _ in range(5):
            self.assertTrue(guard.step().should_update)
        state = guard.state_dict()
        restored, fresh = guard_of(named, **options), guard_of(named, **options)
        restored.load_state_dict(state)
        for _, p in named:
            p.grad.mul_(10)
        reasons = [g.step().reason for g in (guard, restored, fresh)]
        self.assertEqual(reasons, ["rolling_mean", "rolling_mean", "within_limits"])
        self.refused("state", guard.load_state_dict, {**state, "core": state["core"][:-1]})

    def test_refuses_options_that_are_none(self):
        self.refused("there is no 'max_nrom'", gradwarden.Guard, max_nrom=1.0)
        self.refused("max_norm is -1", gradwarden.Guard, max_norm=-1)
        self.refused("max_norm is 'much'", gradwarden.Guard, max_norm="much")
        self.refused("allowed: fixed, percentile", gradwarden.Guard, clip_rule="best")
        self.refused("run", gradwarden.Guard, history_path="history.gwh")

    def test_refuses_tensors_that_it_cannot_read(self):
        for text, tensor in (
            ("complex64", torch.zeros(2, dtype=torch.complex64, requires_grad=True)),
            ("meta", torch.zeros(2, device="meta", requires_grad=True)),
        ):
            self.refused(text, gradwarden.Guard().bind, [("bad", tensor)])
        self.refused("no tensor", gradwarden.Guard().bind, [("frozen", torch.zeros(2))])
        self.refused("no model", gradwarden.Guard().step)

    def test_refuses_a_sparse_gradient(self):
        table = torch.nn.Embedding(4, 2, sparse=True)
        guard = guard_of(table.named_parameters())
        guard.step()
        table(torch.tensor([1])).sum().backward()
        self.refused("sparse", guard.step)

    def test_a_closed_guard_says_so(self):
        named = parameters()
        with guard_of(named) as guard:
            guard.step()
        self.refused("closed", guard.step)
        self.refused("closed", guard.state_dict)
        self.assertTrue(guard.close())


def bind_unlike(rank, world, _):
    dtype = torch.float32 if rank == 0 else torch.int32
    tensor = torch.zeros(3, dtype=dtype)
    tensor.grad = torch.zeros(3, dtype=dtype)
    try:
        gradwarden.Guard().bind([("weight", tensor)])
    except gradwarden.Error as error:
        return str(error)
    return ""


def make_unlike(rank, world, options):
    try:
        gradwarden.Guard(**options[rank])
    except gradwarden.Error as error:
        return str(error)
    return ""


def reduce_by_hand(rank, world, _):
    named = parameters(seed=rank)
    guard = guard_of(named, max_norm=0.5)
    guard.observe_local()
    for _, p in named:
        torch.distributed.all_reduce(p.grad)
        p.grad.div_(world)
    expected = norm_of(named)
    return guard.step().grad_norm / expected, norm_of(named)


class GuardOfSeveralRanksTest(RanksTest):
    def test_what_is_wrong_on_one_rank_is_an_error_on_all(self):
        for found in self.run_ranks(2, bind_unlike, None):
            self.assertRegex(found, "rank 1.*int32")

    def test_an_option_that_is_wrong_on_one_rank_is_an_error_on_all(self):
        for found in self.run_ranks(2, make_unlike, [{"max_norm": 1.0}, {"max_norm": "much"}]):
            self.assertRegex(found, "rank 1.*max_norm is 'much'")

    def test_a_run_that_only_one_rank_names_is_an_error_on_all(self):
        for found in self.run_ranks(2, make_unlike, [{"run": "a"}, {}]):
            self.assertRegex(found, "run")

    def test_gradients_reduced_by_hand_have_one_norm_on_all_ranks(self):
        for ratio, clipped in self.run_ranks(3, reduce_by_hand, None):
            self.assertAlmostEqual(ratio, 1, delta=1e-6)
            self.assertAlmostEqual(clipped, 0.5, delta=1e-5)


if __name__ == "__main__":
    unittest.main()
