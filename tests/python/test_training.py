"""The guard in a training loop: optimizers, loss scalers, learning rates, names."""

import copy
import io
import unittest
import unittest.mock

import torch
from ranks import RanksTest
from torch.nn.parallel import DistributedDataParallel

import gradwarden
import gradwarden._device_memory
from gradwarden._optimizers import Optimizers

MAX_NORM = 0.5


def network(seed=3):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def batch(step):
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(step))


def backward(model, step, scaler=None, factor=1.0):
    loss = model(batch(step)).square().mean() * factor
    (loss if scaler is None else scaler.scale(loss)).backward()
    return loss.detach()


def bits(tensors):
    return [t.detach().numpy().tobytes() for t in tensors]


def optimizer_state(optimizer):
    """Every tensor of the state, as bytes."""
    return [bits(v for v in state.values() if isinstance(v, torch.Tensor)) for state in optimizer.state.values()]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "fused adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
}


class TrainingTest(unittest.TestCase):
    def check_same(self, mine, theirs, tolerance=1e-6):
        for (name, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters()):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")

    def test_a_guarded_loop_trains_as_clipping_and_stepping_by_hand(self):
        for kind, make in OPTIMIZERS.items():
            with self.subTest(optimizer=kind):
                mine = network()
                theirs = copy.deepcopy(mine)
                optimizer, plain = make(mine.parameters()), make(theirs.parameters())
                guard = gradwarden.Guard(mine, optimizer, max_norm=MAX_NORM)
                decisions = set()
                for step in range(12):
                    optimizer.zero_grad(), plain.zero_grad()
                    factor = 1.0 if step % 2 else 0.1  # some steps are clipped, some are not
                    loss = backward(mine, step, factor=factor)
                    backward(theirs, step, factor=factor)
                    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_NORM)
                    plain.step()
                    outcome = guard.step(loss=loss, batch_ids=[step])
                    decisions.add(outcome.decision)
                    self.assertAlmostEqual(outcome.grad_norm / norm.item(), 1, delta=1e-5)
                    self.assertEqual((outcome.step, outcome.loss), (step, loss.item()))
                    self.assertIs(guard.last, outcome)
                self.assertEqual(decisions, {"apply", "clip"})
                self.check_same(mine, theirs, 1e-4)
                self.assertFalse(hasattr(optimizer, "found_inf") or hasattr(optimizer, "grad_scale"))

    def test_a_skipped_step_leaves_parameters_and_state_as_they_are_to_the_bit(self):
        for kind, make in OPTIMIZERS.items():
            with self.subTest(optimizer=kind):
                model = network()
                optimizer = make(model.parameters())
                guard = gradwarden.Guard(model, optimizer, max_norm=MAX_NORM, skip="above-50")
                for step in range(3):
                    optimizer.zero_grad()
                    backward(model, step)
                    guard.step()
                for poison in (float("nan"), 1e6):
                    parameters, state = bits(model.parameters()), optimizer_state(optimizer)
                    optimizer.zero_grad()
                    backward(model, 9)
                    model[0].weight.grad[1, 2] = poison
                    gradients = bits(p.grad for p in model.parameters())
                    outcome = guard.step()
                    self.assertFalse(outcome.should_update)
                    self.assertEqual(bits(model.parameters()), parameters)
                    self.assertEqual(optimizer_state(optimizer), state)
                    self.assertEqual(bits(p.grad for p in model.parameters()), gradients)
                optimizer.zero_grad()
                backward(model, 10)
                self.assertTrue(guard.step().should_update)
                self.assertNotEqual(bits(model.parameters()), parameters)

    def test_after_a_skip_in_the_very_first_step_an_optimizer_is_as_new(self):
        for kind, make in OPTIMIZERS.items():
            with self.subTest(optimizer=kind):
                mine = network()
                theirs = copy.deepcopy(mine)
                optimizer, fresh = make(mine.parameters()), make(theirs.parameters())
                guard = gradwarden.Guard(mine, optimizer, max_norm=MAX_NORM)
                other = gradwarden.Guard(theirs, fresh, max_norm=MAX_NORM)
                backward(mine, 9)
                mine[0].weight.grad[1, 2] = float("nan")
                self.assertFalse(guard.step().should_update)
                self.assertEqual(optimizer_state(optimizer), optimizer_state(fresh))
                for step in range(2):
                    for model, one, of in ((mine, optimizer, guard), (theirs, fresh, other)):
                        one.zero_grad()
                        backward(model, step)
                        self.assertTrue(of.step().should_update)
                    self.assertEqual(bits(mine.parameters()), bits(theirs.parameters()))
                    self.assertEqual(optimizer_state(optimizer), optimizer_state(fresh))

    def test_an_optimizer_that_a_loaded_state_makes_an_unfused_one_is_clipped_and_skipped(self):
        def make(parameters, fused):
            return torch.optim.AdamW(parameters, lr=0.01, fused=fused)

        mine = network()
        theirs = copy.deepcopy(mine)
        optimizer, plain = make(mine.parameters(), True), make(theirs.parameters(), None)
        guard = gradwarden.Guard(mine, optimizer, max_norm=0.05)
        for step in range(6):
            optimizer.zero_grad(), plain.zero_grad()
            if step == 2:  # the guard has stepped it as a fused one by now
                optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
                self.assertFalse(optimizer.param_groups[0]["fused"])
            backward(mine, step)
            if step == 4:
                mine[0].weight.grad[0, 0] = float("inf")
            else:
                backward(theirs, step)
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
                plain.step()
            self.assertEqual(guard.step().decision, "skip" if step == 4 else "clip")
            self.check_same(mine, theirs, 1e-4)

    def test_a_fused_optimizer_is_told_in_float32_whatever_the_default_is_and_never_to_divide_by_infinity(self):
        seen = []

        class Told(torch.optim.SGD):
            def step(self, closure=None):
                seen.append((self.grad_scale, self.found_inf))
                return super().step(closure)

        self.addCleanup(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float32))
        guard = gradwarden.Guard([("w", weight)], Told([weight], lr=0.1, fused=True), max_norm=1e-3)
        for gradient in (1.0, 3e38):
            weight.grad = torch.full((2,), gradient, dtype=torch.float32)
            self.assertEqual(guard.step().decision, "clip")
        self.assertEqual({one.dtype for both in seen for one in both}, {torch.float32})
        self.assertEqual(seen[1][0].item(), torch.finfo(torch.float32).max)

    def test_found_inf_and_grad_scale_of_the_callers_own_count_and_stay(self):
        for found, norm_limit in ((1.0, 1e-3), (1.0, 1e9), (0.0, 1e-3), (0.0, 1e9)):
            with self.subTest(found=found, norm_limit=norm_limit):
                mine = network()
                theirs = copy.deepcopy(mine)
                optimizer, plain = (torch.optim.SGD(m.parameters(), lr=0.1, fused=True) for m in (mine, theirs))
                optimizer.found_inf, optimizer.grad_scale = given = torch.tensor(found), torch.tensor(4.0)
                guard = gradwarden.Guard(mine, optimizer, max_norm=norm_limit)
                backward(mine, 0), backward(theirs, 0)
                if found == 0.0:
                    torch.nn.utils.clip_grad_norm_(theirs.parameters(), norm_limit)
                    for parameter in theirs.parameters():
                        parameter.grad.div_(4.0)
                    plain.step()
                guard.step()
                self.check_same(mine, theirs)
                self.assertIs(optimizer.found_inf, given[0])
                self.assertIs(optimizer.grad_scale, given[1])

    def test_a_fused_optimizer_must_not_begin_with_a_skip_while_it_has_momentum_to_make(self):
        def ready(kind):
            model = network()
            backward(model, 0)
            return model, OPTIMIZERS[kind](model.parameters())

        for kind in OPTIMIZERS:
            self.assertEqual(Optimizers(ready(kind)[1]).must_not_begin_with_a_skip(), kind == "fused sgd", kind)
        _, optimizer = ready("fused sgd")
        optimizer.step()
        self.assertFalse(Optimizers(optimizer).must_not_begin_with_a_skip())
        optimizer.add_param_group({"params": list(ready("sgd")[0].parameters())})
        self.assertTrue(Optimizers(optimizer).must_not_begin_with_a_skip())
        optimizer.param_groups[1]["momentum"] = 0.0
        self.assertFalse(Optimizers(optimizer).must_not_begin_with_a_skip())

    def test_of_several_optimizers_all_are_stepped_or_none(self):
        model = network()
        first = torch.optim.SGD(model[0].parameters(), lr=0.1)
        second = torch.optim.AdamW(model[2].parameters(), lr=0.1, fused=True)
        guard = gradwarden.Guard(model, [first, second], max_norm=MAX_NORM)
        backward(model, 0)
        before = bits(model.parameters())
        guard.step()
        after = bits(model.parameters())
        self.assertTrue(all(a != b for a, b in zip(before, after)))
        model.zero_grad()
        backward(model, 1)
        model[2].bias.grad.fill_(float("inf"))
        guard.step()
        self.assertEqual(bits(model.parameters()), after)

    def test_accumulated_gradients_are_read_when_step_is_called(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = gradwarden.Guard(model, optimizer)
        for part in range(4):
            backward(model, part)
        expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
        self.assertAlmostEqual(guard.step().grad_norm / expected, 1, delta=1e-6)

    def test_a_spike_reduces_the_learning_rate_of_its_step_alone(self):
        for rate in (0.1, torch.tensor(0.1)):
            with self.subTest(rate=rate):
                model = network()
                optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=rate)
                guard = gradwarden.Guard(
                    model, optimizer, skip="above-10", on_spike="reduce_learning_rate", least_learning_rate_factor=0.01)
                for p in model.parameters():
                    p.grad = torch.zeros_like(p)
                model[2].bias.grad.fill_(40.0)
                before = model[2].bias.item()
                outcome = guard.step()
                self.assertEqual((outcome.decision, outcome.learning_rate_factor), ("reduce", 0.25))
                self.assertAlmostEqual(before - model[2].bias.item(), 0.1 * 0.25 * 40, delta=1e-5)
                self.assertTrue(all(group["lr"] is rate for group in optimizer.param_groups))
                self.assertAlmostEqual(outcome.learning_rate, 0.1, delta=1e-8)

    def test_a_learning_rate_is_put_back_where_the_optimizer_fails(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def failing_step():
            raise ValueError("no step today")

        optimizer.step = failing_step
        guard = gradwarden.Guard(model, optimizer, skip="above-0.001", on_spike="reduce_learning_rate")
        backward(model, 0)
        with self.assertRaisesRegex(ValueError, "no step today"):
            guard.step()
        self.assertEqual(optimizer.param_groups[0]["lr"], 0.1)

    def test_without_an_optimizer_the_caller_steps(self):
        model = network()
        guard = gradwarden.Guard(model, max_norm=MAX_NORM)
        backward(model, 0)
        before = bits(model.parameters())
        self.assertTrue(guard.step().should_update)
        self.assertEqual(bits(model.parameters()), before)

    def test_shadow_mode_changes_nothing(self):
        mine = network()
        theirs = copy.deepcopy(mine)
        optimizer, plain = (torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (mine, theirs))
        guard = gradwarden.Guard(mine, optimizer, max_norm=1e-3, skip="above-0.001", shadow=True)
        for step in range(3):
            mine.zero_grad(), theirs.zero_grad()
            backward(mine, step), backward(theirs, step)
            plain.step()
            self.assertEqual(guard.step().decision, "skip")
        self.assertEqual(bits(mine.parameters()), bits(theirs.parameters()))

    def test_a_compiled_model_is_named_as_the_one_it_was_compiled_from(self):
        model = network()
        compiled = torch.compile(model, backend="eager")
        guard = gradwarden.Guard(compiled, skip_non_finite=True)
        backward(compiled, 0)
        model[0].weight.grad[0, 0] = float("nan")
        found = guard.step().non_finite
        self.assertEqual([(one.tensor, one.rank, one.index, one.nan_count) for one in found], [("0.weight", 0, 0, 1)])

    def test_a_compiled_part_of_a_model_leaves_no_trace_in_the_names(self):
        model = network()
        model[0] = torch.compile(model[0], backend="eager")
        guard = gradwarden.Guard(model)
        backward(model, 0)
        model[0]._orig_mod.bias.grad[0] = float("inf")
        self.assertEqual([one.tensor for one in guard.step().non_finite], ["0.bias"])

    def test_a_saved_state_goes_through_torch_save_and_decides_as_before(self):
        def guarded():
            model = network()
            return model, gradwarden.Guard(model, skip="3x-rolling-mean", window=4, warmup=4)

        def give(model, value):
            for p in model.parameters():
                p.grad = torch.full_like(p, value)

        model, guard = guarded()
        for _ in range(6):
            give(model, 1.0)
            guard.step()
        file = io.BytesIO()
        torch.save(guard.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other_model, other = guarded()
        other.load_state_dict(state)
        for m, g in ((model, guard), (other_model, other)):
            give(m, 10.0)
            outcome = g.step()
            self.assertEqual((outcome.step, outcome.reason), (6, "rolling_mean"))


class ScalerTest(unittest.TestCase):
    """torch.amp.GradScaler on the CPU, against one that does it all by itself."""

    def scaler(self, **options):
        return torch.amp.GradScaler("cpu", **{"init_scale": 1024.0, "growth_interval": 5, **options})

    def run_both(self, make, *, unscale_before=False, poison_at=(), steps=12):
        mine = network()
        theirs = copy.deepcopy(mine)
        optimizer, plain = make(mine.parameters()), make(theirs.parameters())
        scaler, reference = self.scaler(), self.scaler()
        guard = gradwarden.Guard(mine, optimizer, max_norm=MAX_NORM)
        for step in range(steps):
            optimizer.zero_grad(), plain.zero_grad()
            backward(mine, step, scaler), backward(theirs, step, reference)
            if step in poison_at:
                mine[0].weight.grad[0, 0] = theirs[0].weight.grad[0, 0] = float("inf")
            reference.unscale_(plain)
            norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_NORM)
            reference.step(plain)
            reference.update()
            if unscale_before:
                scaler.unscale_(optimizer)
            outcome = guard.step(scaler=scaler)
            scaler.update()
            if step in poison_at:
                self.assertEqual((outcome.decision, outcome.reason), ("skip", "loss_scale_overflow"))
            else:
                self.assertAlmostEqual(outcome.grad_norm / norm.item(), 1, delta=1e-5)
                for a, b in zip(mine.parameters(), theirs.parameters()):
                    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
            self.assertEqual(scaler.get_scale(), reference.get_scale())
            self.assertEqual(scaler._get_growth_tracker(), reference._get_growth_tracker())
        for a, b in zip(mine.parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        return scaler

    def test_scaled_steps_come_out_as_unscale_clip_and_step(self):
        for kind, make in OPTIMIZERS.items():
            for unscale_before in (False, True):
                with self.subTest(optimizer=kind, unscale_before=unscale_before):
                    self.assertEqual(self.run_both(make, unscale_before=unscale_before).get_scale(), 4096.0)

    def test_an_overflow_moves_the_scale_as_without_a_guard(self):
        for kind, make in OPTIMIZERS.items():
            for unscale_before in (False, True):
                with self.subTest(optimizer=kind, unscale_before=unscale_before):
                    self.run_both(make, poison_at=(2, 3, 7), unscale_before=unscale_before)

    def test_fifty_spikes_that_are_skipped_leave_the_scales_schedule_alone(self):
        for kind, make in OPTIMIZERS.items():
            with self.subTest(optimizer=kind):
                model = network()
                optimizer = make(model.parameters())
                scaler, reference = self.scaler(growth_interval=20), self.scaler(growth_interval=20)
                for one in (scaler, reference):
                    one.scale(torch.ones(()))
                guard = gradwarden.Guard(model, optimizer, skip="above-0.000000001", max_consecutive_skips=100)
                before = bits(model.parameters())
                for step in range(50):
                    optimizer.zero_grad()
                    backward(model, step, scaler)
                    outcome = guard.step(scaler=scaler)
                    self.assertEqual((outcome.decision, outcome.reason), ("skip", "absolute_limit"))
                    scaler.update()
                    # The same gradients, all of them finite and taken.
                    reference._per_optimizer_states[0]["found_inf_per_device"] = {"cpu": torch.zeros(())}
                    reference.update()
                    self.assertEqual(scaler.get_scale(), reference.get_scale())
                self.assertEqual(bits(model.parameters()), before)
                self.assertEqual(scaler.get_scale(), 4096.0)

    def test_several_optimizers_of_which_one_was_unscaled(self):
        model = network()
        optimizers = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2)]
        scaler = self.scaler()
        guard = gradwarden.Guard(model, optimizers)
        backward(model, 0)
        expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
        model.zero_grad()
        backward(model, 0, scaler)
        scaler.unscale_(optimizers[1])
        outcome = guard.step(scaler=scaler)
        scaler.update()
        self.assertAlmostEqual(outcome.grad_norm / expected, 1, delta=1e-5)

    def test_a_scaler_that_is_not_enabled_changes_nothing(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        guard = gradwarden.Guard(model, optimizer)
        backward(model, 0, scaler)
        self.assertEqual(guard.step(scaler=scaler).decision, "apply")
        scaler.update()

    def test_misuse_of_a_scaler_is_a_clear_error(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = gradwarden.Guard(model, optimizer)
        scaler = self.scaler()
        backward(model, 0)
        for text, arguments in (
            ("no scale yet", {"scaler": scaler}),
            ("allowed: a torch.amp.GradScaler", {"scaler": 1024.0}),
            ("allowed: one of them", {"scaler": scaler, "loss_scale": 2.0}),
        ):
            with self.assertRaisesRegex(gradwarden.Error, text):
                guard.step(**arguments)
        backward(model, 0, scaler)
        guard.step(scaler=scaler)
        with self.assertRaisesRegex(gradwarden.Error, "update"):
            guard.step(scaler=scaler)
        with self.assertRaisesRegex(gradwarden.Error, "Guard\\(model, optimizer\\)"):
            gradwarden.Guard(model).step(scaler=scaler)


def train_on_ranks(rank, world, kind):
    """Beside clipping and stepping by hand. Rank 1 alone gets a NaN in step 3."""
    mine = network()
    theirs = copy.deepcopy(mine)
    mine, theirs = DistributedDataParallel(mine), DistributedDataParallel(theirs)
    optimizer, plain = OPTIMIZERS[kind](mine.parameters()), OPTIMIZERS[kind](theirs.parameters())
    guard = gradwarden.Guard(mine, optimizer, max_norm=MAX_NORM)
    decisions = []
    for step in range(6):
        optimizer.zero_grad(), plain.zero_grad()
        backward(mine, step * world + rank), backward(theirs, step * world + rank)
        if step == 3:
            before = bits(mine.parameters())
            if rank == 1:
                mine.module[2].weight.grad[0, 5] = float("nan")
        else:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_NORM)
            plain.step()
        outcome = guard.step()
        decisions.append((outcome.decision, outcome.reason))
        if step == 3:
            skipped = before == bits(mine.parameters())
            found = [(one.tensor, one.rank, one.index) for one in outcome.non_finite]
    torch.distributed.barrier()
    same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(mine.parameters(), theirs.parameters()))
    return {"decisions": decisions, "skipped": skipped, "found": found, "same": same}


class RanksTrainingTest(RanksTest):
    def test_ranks_train_as_by_hand_and_a_nan_on_one_skips_the_step_on_all(self):
        for kind in ("adamw", "fused adamw"):
            with self.subTest(optimizer=kind):
                for result in self.run_ranks(2, train_on_ranks, kind):
                    self.assertEqual(result["decisions"][3], ("skip", "non_finite"))
                    self.assertNotIn("skip", {decision for i, (decision, _) in enumerate(result["decisions"]) if i != 3})
                    self.assertTrue(result["skipped"] and result["same"])
                    self.assertEqual(result["found"], [("2.weight", 1, 5)])


class DeviceExchangeTest(unittest.TestCase):
    def test_on_a_gpu_a_process_group_of_other_ranks_than_the_default_one_is_refused(self):
        device = torch.device("cuda", 0)
        with unittest.mock.patch("torch.distributed.get_world_size", return_value=4):
            with self.assertRaisesRegex(gradwarden.Error, "process_group has 2 of the 4 ranks"):
                gradwarden._device_memory.communicator_of(device, 2)
            self.assertEqual(gradwarden._device_memory.communicator_of(device, 4), 0)  # torch shows none here


if __name__ == "__main__":
    unittest.main()
