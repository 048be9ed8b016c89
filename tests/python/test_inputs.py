"""What a guard is given: models, names and groups, words, and what is no use to it."""

import gc
import logging
import multiprocessing
import tempfile
import unittest
import warnings

import torch
from ranks import RanksTest

import gradwarden


def fill(tensors, value=1.0):
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, value)


def pairs(*names):
    made = [(name, torch.nn.Parameter(torch.zeros(2))) for name in names]
    fill((tensor for _, tensor in made), 3.0)
    return made


def groups_of(names, **keywords):
    """The groups of tensors of these names: a rule clips each by a factor of its own, so that equal gradients tell."""
    named = pairs(*names)
    guard = gradwarden.Guard(named, **keywords)
    guard.step()
    return {slot.name: slot.group for slot in guard._slots}


class Case(unittest.TestCase):
    def refused(self, text, function, *arguments, **keywords):
        with self.assertRaisesRegex(gradwarden.Error, text):
            function(*arguments, **keywords)


class NamesTest(Case):
    def test_groups_are_layers_by_their_number_and_else_modules(self):
        expected = {
            "transformer.h.3.attn.weight": "transformer.h.3",
            "transformer.h.3.mlp.0.weight": "transformer.h.3",
            "transformer.wte.weight": "transformer.wte",
            "net.1.2.attn.weight": "net.1.2",
            "0.weight": "0",
            "scale": "scale",
        }
        self.assertEqual(groups_of(expected), expected)

    def test_groups_by_word_pattern_and_function(self):
        names = ("h.0.attn.weight", "h.0.attn.bias", "h.1.mlp.weight")
        self.assertEqual(set(groups_of(names, groups="module").values()), {"h.0.attn", "h.1.mlp"})
        self.assertEqual(groups_of(names, groups="tensor"), {name: name for name in names})
        by_pattern = groups_of(names, groups={"*.bias": "biases", "*.mlp.*": "mlp"})
        self.assertEqual(list(by_pattern.values()), ["h.0", "biases", "mlp"])
        self.assertEqual(set(groups_of(names, groups=lambda name: name[-4:]).values()), {"ight", "bias"})
        self.refused("allowed: layer, module, tensor", gradwarden.Guard, pairs("a"), groups="planet")
        self.refused("groups is a int", gradwarden.Guard, pairs("a"), groups=3)

    def test_a_function_that_gives_no_group_is_a_clear_error(self):
        self.refused("groups gave None for 'a'", gradwarden.Guard(pairs("a"), groups=lambda name: None).step)
        self.refused("groups failed for 'a'.*KeyError", gradwarden.Guard(pairs("a"), groups=lambda name: {}[name]).step)

    def test_a_group_rule_clips_the_groups_that_it_matches(self):
        named = pairs("h.0.a.weight", "h.1.a.weight")
        rule = gradwarden.GroupRule("h.1", max_norm=0.5)
        self.assertEqual(gradwarden.Guard(named, group_rules=[rule]).step().clipped_groups, 1)
        self.assertAlmostEqual(named[0][1].grad.norm().item(), 18**0.5, delta=1e-5)
        self.assertAlmostEqual(named[1][1].grad.norm().item(), 0.5, delta=1e-5)

    def test_adaptive_clipping_reads_the_parameters(self):
        weights = [torch.nn.Parameter(torch.full((4,), value)) for value in (1.0, 100.0)]
        fill(weights, 5.0)
        for options in ({"adaptive_clip": 0.5}, {"group_rules": [gradwarden.GroupRule("*", adaptive_clip=0.5)]}):
            with self.subTest(options=options):
                fill(weights, 5.0)
                outcome = gradwarden.Guard([("small", weights[0]), ("large", weights[1])], **options).step()
                self.assertEqual((outcome.reason, outcome.clipped_tensors), ("adaptive_clip", 1))
                self.assertAlmostEqual(weights[0].grad.norm().item(), 0.5 * 2.0, delta=1e-5)
                self.assertEqual(weights[1].grad.norm().item(), 10.0)

    def test_adaptive_clipping_follows_parameters_that_get_other_memory(self):
        weight = torch.nn.Parameter(torch.ones(4))
        guard = gradwarden.Guard([("w", weight)], adaptive_clip=0.5)
        for scale in (1.0, 10.0):
            weight.data = torch.full((4,), scale)
            fill([weight], 50.0)
            guard.step()
            self.assertAlmostEqual(weight.grad.norm().item(), 0.5 * 2.0 * scale, delta=1e-4)

    def test_names_that_are_no_pairs_or_not_unique_are_refused(self):
        model = torch.nn.Linear(2, 2)
        self.refused("pairs of a name and a tensor", gradwarden.Guard, model.parameters())
        self.refused("pairs of a name and a tensor", gradwarden.Guard, 3)
        self.refused("two tensors are called 'a'", gradwarden.Guard(pairs("a", "_orig_mod.a")).step)


class WordsTest(Case):
    def test_the_words_of_skip_are_the_options_of_the_core(self):
        def decided(skip, norms, **options):
            weight = torch.nn.Parameter(torch.zeros(1))
            guard = gradwarden.Guard([("w", weight)], skip=skip, window=8, warmup=4, **options)
            for norm in norms:
                weight.grad = torch.tensor([norm])
                outcome = guard.step()
            return outcome.reason

        steady = [1.0, 1.01, 0.99, 1.0, 1.02, 1.0]
        self.assertEqual(decided("3x-rolling-mean", [*steady, 3.5]), "rolling_mean")
        self.assertEqual(decided("4x-rolling-mean", [*steady, 3.5]), "within_limits")
        self.assertEqual(decided("z-score-6", [*steady, 3.5]), "z_score")
        self.assertEqual(decided("robust-z-score-6", [*steady, 3.5]), "robust_z_score")
        self.assertEqual(decided("above-2.5", [*steady, 3.5]), "absolute_limit")
        self.assertEqual(decided("non-finite", [*steady, 3.5]), "within_limits")
        self.assertEqual(decided("non-finite, above-2.5", [*steady, float("nan")]), "non_finite")
        self.assertEqual(decided(None, [float("nan")]), "non_finite")
        self.assertEqual(decided("above-2.5", [float("nan")]), "non_finite")

    def test_other_words_are_refused_with_those_that_are_allowed(self):
        self.refused(
            "skip has the word '3x-mean'; allowed: 3x-rolling-mean, z-score-6, robust-z-score-6, above-100, non-finite",
            gradwarden.Guard, skip="3x-mean")
        for words in ("", "above--3", "above-1e3", "3x-rolling-mean,", "above-inf"):
            self.refused("allowed", gradwarden.Guard, skip=words)
        self.refused("skip_above_rolling_mean is 0.5", gradwarden.Guard, skip="0.5x-rolling-mean")
        self.refused("says skip_above twice", gradwarden.Guard, skip="above-1,above-2")
        self.refused("both skip='above-1' and skip_above", gradwarden.Guard, skip="above-1", skip_above=2.0)
        self.refused("observe has 'moments'; allowed: parameters", gradwarden.Guard, observe=["moments"])

    def test_what_is_no_optimizer_is_refused(self):
        model = torch.nn.Linear(2, 2)
        self.refused("optimizer is a float", gradwarden.Guard, model, 0.1)
        self.refused("optimizer is a Linear", gradwarden.Guard, model, [model])
        self.refused("LBFGS.step.. needs closure", gradwarden.Guard, model, torch.optim.LBFGS(model.parameters()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        self.refused("listed twice", gradwarden.Guard, model, [optimizer, optimizer])

    def test_an_optimizer_that_a_schedule_has_wrapped_is_stepped(self):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        before = model.weight.detach().clone()
        fill(model.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a schedule that saw no step
            gradwarden.Guard(model, optimizer).step()
            schedule.step()
        self.assertFalse(torch.equal(before, model.weight))

    def test_parameters_that_only_the_optimizer_has_are_warned_of(self):
        model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
        fill(model.parameters())
        with self.assertLogs("gradwarden", logging.WARNING) as logs:
            gradwarden.Guard(model, optimizer).step()
        self.assertIn("2 parameters that the model does not have", logs.output[0])


class GradientsTest(Case):
    def test_a_model_without_gradients_is_stepped_and_said_once(self):
        model = torch.nn.Linear(2, 2)
        guard = gradwarden.Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), max_norm=1.0)
        with self.assertLogs("gradwarden", logging.WARNING) as logs:
            for _ in range(3):
                outcome = guard.step()
        self.assertEqual((outcome.decision, outcome.grad_norm), ("apply", 0.0))
        self.assertEqual(len(logs.output), 1)
        self.assertIn("no parameter has a gradient", logs.output[0])
        self.assertTrue(all(p.grad is None for p in model.parameters()))

    def test_a_frozen_model_is_refused(self):
        self.refused("no tensor that takes a gradient", gradwarden.Guard(torch.nn.Linear(2, 2).requires_grad_(False)).step)
        self.refused("no tensor that takes a gradient", gradwarden.Guard([]).step)

    def test_tensors_that_it_cannot_read_are_refused_by_name(self):
        for text, tensor in (
            ("'bad' is torch.complex64", torch.zeros(2, dtype=torch.complex64)),
            ("'bad' is on meta; allowed: a device with memory", torch.zeros(2, device="meta")),
        ):
            named = [*pairs("good"), ("bad", torch.nn.Parameter(tensor))]
            self.refused(text, gradwarden.Guard(named).step)

    def test_a_gradient_that_became_sparse_is_refused_and_nothing_is_clipped(self):
        model = torch.nn.Sequential(torch.nn.Embedding(4, 2, sparse=True), torch.nn.Linear(2, 1))
        guard = gradwarden.Guard(model, max_norm=1e-3)
        guard.step()
        model(torch.tensor([1])).sum().backward()
        before = model[1].weight.grad.clone()
        self.refused("0.weight.*sparse", guard.step)
        self.assertTrue(torch.equal(model[1].weight.grad, before))

    def test_gradients_in_any_order_of_memory_are_read_in_place(self):
        weight = torch.nn.Parameter(torch.zeros(2, 3, 4, 5))
        weight.grad = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        expected, place = weight.grad.norm().item(), weight.grad.data_ptr()
        outcome = gradwarden.Guard([("w", weight)], max_norm=1.0).step()
        self.assertAlmostEqual(outcome.grad_norm / expected, 1, delta=1e-6)
        self.assertAlmostEqual(weight.grad.norm().item(), 1.0, delta=1e-5)
        self.assertEqual(weight.grad.data_ptr(), place)

    def test_gradients_that_lie_scattered_are_brought_together(self):
        weight = torch.nn.Parameter(torch.zeros(4, 5))
        guard = gradwarden.Guard([("w", weight)], max_norm=1.0)
        for made in (torch.randn(4, 10)[:, ::2], torch.randn(5).expand(4, 5), torch.randn(4, 7)[:, 1:6]):
            weight.grad = made
            expected = made.double().norm().item()
            self.assertAlmostEqual(guard.step().grad_norm / expected, 1, delta=1e-6)
            self.assertAlmostEqual(weight.grad.norm().item(), 1.0, delta=1e-5)

    def test_memory_of_old_gradients_is_not_kept(self):
        weight = torch.nn.Parameter(torch.zeros(1000))
        weight.grad = torch.ones(1000)
        guard = gradwarden.Guard([("w", weight)])
        guard.step()
        storage = torch.multiprocessing.reductions.StorageWeakRef(weight.grad.untyped_storage())
        self.assertFalse(storage.expired())
        weight.grad = None
        self.assertTrue(storage.expired())


def drop(guard):
    held = guard.pop()
    del held
    gc.collect()


class ForkTest(Case):
    def test_a_child_that_drops_a_guard_ends(self):
        weight = torch.nn.Parameter(torch.zeros(1 << 20))
        weight.grad = torch.ones(1 << 20)
        with tempfile.TemporaryDirectory() as directory:
            guard = gradwarden.Guard([("w", weight)], threads=2, run="fork", history_path=f"{directory}/history.gwh")
            self.assertEqual(guard.step().grad_norm, 1024.0)
            held = [guard]
            del guard  # the child's copy is then the last
            child = multiprocessing.get_context("fork").Process(target=drop, args=(held,))
            child.start()
            child.join(60)
            ended = child.exitcode
            if ended is None:
                child.kill()
            self.assertEqual(ended, 0)
            self.assertEqual(held[0].step().grad_norm, 1024.0)
            self.assertTrue(held[0].close())


class ChangesTest(Case):
    """Of the parameters between steps."""

    def setUp(self):
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.guard = gradwarden.Guard(self.model, self.optimizer)

    def norm_agrees(self):
        fill((p for p in self.model.parameters() if p.requires_grad), 2.0)
        expected = sum(4.0 * p.numel() for p in self.model.parameters() if p.requires_grad) ** 0.5
        self.assertAlmostEqual(self.guard.step().grad_norm / expected, 1, delta=1e-6)

    def test_added_parameters_are_guarded_from_their_first_step(self):
        self.norm_agrees()
        self.model.append(torch.nn.Linear(3, 2))
        self.optimizer.add_param_group({"params": self.model[2].parameters()})
        self.norm_agrees()

    def test_replaced_parameters_are_guarded_from_their_first_step(self):
        self.norm_agrees()
        self.model[1] = torch.nn.Linear(3, 7)
        self.optimizer.param_groups[0]["params"] = list(self.model.parameters())
        self.norm_agrees()

    def test_removed_parameters_count_no_more(self):
        self.norm_agrees()
        self.optimizer.zero_grad()
        del self.model[1]
        self.norm_agrees()

    def test_parameters_that_thaw_are_found_within_a_hundred_steps_and_at_once_if_the_optimizer_gets_them(self):
        self.model[0].requires_grad_(False)
        self.norm_agrees()
        self.model[0].requires_grad_(True)
        fill(self.model.parameters(), 2.0)
        norms = {round(self.guard.step().grad_norm, 5) for _ in range(101)}
        self.assertEqual(norms, {round((4 * 12) ** 0.5, 5), round((4 * 24) ** 0.5, 5)})
        self.norm_agrees()

    def test_a_reshaped_parameter_is_read_in_its_new_shape(self):
        self.norm_agrees()
        weight = self.model[0].weight
        weight.grad = None
        weight.data = torch.zeros(9, 9)
        self.norm_agrees()

    def test_a_parameter_of_another_dtype_is_read_as_such(self):
        self.norm_agrees()
        self.model.zero_grad()
        self.model.double()
        self.norm_agrees()

    def test_a_change_that_nobody_tells_of_is_found_within_a_hundred_steps(self):
        guard = gradwarden.Guard(self.model)
        fill(self.model.parameters(), 2.0)
        guard.step()
        self.model[1] = torch.nn.Linear(3, 7)
        fill(self.model.parameters(), 2.0)
        for _ in range(100):
            norm = guard.step().grad_norm
        self.assertAlmostEqual(norm, (4 * 40) ** 0.5, delta=1e-4)

    def test_the_window_survives(self):
        guard = gradwarden.Guard(self.model, skip="3x-rolling-mean", window=4, warmup=4)
        for _ in range(6):
            fill(self.model.parameters(), 1.0)
            guard.step()
        self.model.append(torch.nn.Linear(1, 1))
        fill(self.model.parameters(), 100.0)
        self.assertEqual(guard.step().reason, "rolling_mean")


def change_on_ranks(rank, world, _):
    model = torch.nn.Linear(3, 3)
    guard = gradwarden.Guard(model, torch.optim.SGD(model.parameters(), lr=0.1))
    fill(model.parameters())
    guard.step()
    model.zero_grad()
    model.weight = torch.nn.Parameter(torch.zeros(5, 3))
    fill(model.parameters())
    try:
        guard.step()
    except gradwarden.Error as error:
        told = str(error)
    else:
        return "", 0.0
    guard.bind()
    return told, guard.step().grad_norm


def disagree(rank, world, keywords):
    try:
        gradwarden.Guard(torch.nn.Linear(2, 2), **keywords[rank])
    except gradwarden.Error as error:
        return str(error)
    return ""


class RanksInputTest(RanksTest):
    def test_changed_parameters_ask_for_bind_on_every_rank(self):
        for told, norm in self.run_ranks(2, change_on_ranks, None):
            self.assertRegex(told, "call bind\\(\\) again, on every rank")
            self.assertAlmostEqual(norm, 18**0.5, delta=1e-5)

    def test_a_wrong_word_on_one_rank_is_an_error_on_all(self):
        for keywords, text in (
            ([{"skip": "sometimes"}, {}], "rank 0.*'sometimes'"),
            ([{}, {"groups": 3}], "rank 1.*groups"),
            ([{}, {"optimizer": 3}], "rank 1.*optimizer"),
        ):
            for found in self.run_ranks(2, disagree, keywords):
                self.assertRegex(found, text)


if __name__ == "__main__":
    unittest.main()
