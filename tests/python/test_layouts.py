"""Each way to lay a model out over ranks: the guard's norm, clipping and skips against the unsharded model."""

import logging
import re
import sys
import unittest

import layouts
import networks
import torch
from ranks import ManyRanksTest

import gradwarden

STEPS = 3
MAX_NORM = 0.25  # below the norms here, so that every step clips


def run_layout(rank, world, name, dtype):
    """Trains a little; the norms and whole parameters by step, then a NaN in what one rank alone holds."""
    layout = layouts.LAYOUTS[name][0](rank, world, dtype)
    guard = gradwarden.Guard(layout.tensors, layout.optimizer, max_norm=MAX_NORM, **layout.hints)
    seen = []
    for step in range(STEPS):
        loss = layout.backward(networks.tokens(step))
        theirs = layout.torch_norm()
        outcome = guard.step(loss=loss)
        finish_step(layout)
        seen.append((outcome.decision, outcome.grad_norm, theirs, layout.parameters()))
    layout.backward(networks.tokens(STEPS))
    before = layout.local_parameters()
    if rank == world - 1:
        layout.local_gradients()[-1].view(-1)[0] = float("nan")
    spoiled = guard.step()
    finish_step(layout)
    unchanged = [a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(before, layout.local_parameters())]
    return {
        "steps": seen,
        "spoiled": (spoiled.decision, spoiled.reason, spoiled.should_update),
        "unchanged": bool(unchanged) and all(unchanged),
        "tensors": sorted(slot.name for slot in guard._slots),
    }


def finish_step(layout):
    if hasattr(layout, "step_done"):
        layout.step_done()
    layout.optimizer.zero_grad()


def reference(name, dtype):
    """The unsharded model, all data at once: float64 norms, and parameters after clipping by torch."""
    model = networks.network(dtype, layouts.Experts if "experts" in name else networks.Mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=layouts.LEARNING_RATE)
    steps = []
    for step in range(STEPS):
        networks.loss_of(model, networks.tokens(step)).backward()
        norm = networks.norm_of([p.grad for p in model.parameters()])
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        steps.append((norm, {name: p.detach().clone() for name, p in model.named_parameters()}))
    return steps


def differences(results, steps):
    """The largest relative differences: of the guard's norm, of torch's own, and of the parameters' movement."""
    mine = theirs = moved = 0.0
    before = None
    for step, (norm, parameters) in enumerate(steps):
        for _, found, of_torch, whole in (result["steps"][step] for result in results):
            mine = max(mine, abs(found / norm - 1))
            theirs = None if of_torch is None else max(theirs, abs(of_torch / norm - 1))
            error = networks.norm_of([whole[name] - parameters[name] for name in parameters])
            moved = max(moved, error / (MAX_NORM * layouts.LEARNING_RATE))
    return mine, theirs, moved


class LayoutTest(ManyRanksTest):
    CASES = {
        world: [
            (run_layout, name, dtype)
            for name, (_, needed) in layouts.LAYOUTS.items()
            for dtype in (torch.float32, torch.float64)
            if needed == world
        ]
        for world in (1, 2, 4)
    }

    def check(self, name, dtype):
        steps = reference(name, dtype)
        results = self.of_ranks(layouts.LAYOUTS[name][1], run_layout, name, dtype)
        mine, theirs, moved = differences(results, steps)
        theirs = "        -" if theirs is None else f"{theirs:9.1e}"
        print(f"{name:38} {str(dtype)[6:]:8} norm {mine:9.1e}  torch {theirs}  update {moved:9.1e}", file=sys.stderr)
        exact = dtype == torch.float64
        self.assertLess(mine, 1e-12 if exact else 1e-6)
        self.assertLess(moved, 1e-6 if exact else 1e-5)
        self.check_names(name, results, set(steps[0][1]))
        for result in results:
            self.assertEqual(set(result["steps"][0][3]), set(steps[0][1]))
            self.assertEqual([decision for decision, *_ in result["steps"]], ["clip"] * STEPS)
            self.assertEqual(result["spoiled"], ("skip", "non_finite", False))
            self.assertTrue(result["unchanged"])
            # The same bits on all ranks.
            norms = [norm for _, norm, *_ in result["steps"]]
            self.assertEqual(norms, [norm for _, norm, *_ in results[0]["steps"]])
        return results


    def check_names(self, layout, results, expected):
        """Those of the network itself, whatever wraps it; experts told apart by their rank in the group."""
        bound = set().union(*(result["tensors"] for result in results))
        if layout == "ZeRO by hand":
            expected = {"flat"}
        if "experts" in layout:
            self.assertEqual(sum("@" in name for name in bound), sum(".experts." in name for name in expected))
            bound = {re.sub(r"\.expert\.(.*)@(\d)$", r".experts.\2.\1", name) for name in bound}
        self.assertEqual(bound, expected)


def add_cases():
    for name in layouts.LAYOUTS:
        words = "".join(c if c.isalnum() else "_" for c in name)

        def case(self, name=name):
            self.check(name, torch.float32)

        def exact(self, name=name):
            self.check(name, torch.float64)

        setattr(LayoutTest, f"test_{words}_gives_the_norm_and_the_update_of_the_unsharded_model", case)
        setattr(LayoutTest, f"test_{words}_in_float64_gives_them_to_all_but_the_last_bits", exact)


add_cases()

if __name__ == "__main__":
    logging.basicConfig()
    unittest.main()
