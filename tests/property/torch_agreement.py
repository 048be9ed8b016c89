#!/usr/bin/env python3
"""The guard against torch.nn.utils.clip_grad_norm_ and clip_grad_value_ on random cases.

Random lists of gradients (numbers of tensors, shapes, empty ones among them, dtypes, scales), norm
types 1, 2, 3, infinity and 0.5, thresholds above and below the norm. Guard and torch clip copies of
the same gradients, and both are held against a float64 reference: where they differ, the table says
which one is off. Runs under the python of build/tools/torch (deploy/fetch_torch.sh makes it); where
that is missing the test is skipped, with exit code 77.

usage: torch_agreement.py norms|values path/to/libgradwarden_torch_agreement.so [--cases N] [--seed N]
"""

import argparse
import ctypes
import math
import os
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build" / "tools" / "torch" / "bin" / "python"
SKIPPED = 77

if pathlib.Path(sys.prefix).resolve() != PYTHON.parents[1].resolve():
    if PYTHON.exists():
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    print(f"SKIPPED: there is no torch at {PYTHON}; run deploy/fetch_torch.sh build/tools/torch")
    sys.exit(SKIPPED)

import torch  # noqa: E402

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CODES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
NORM_TYPES = [1.0, 2.0, 3.0, math.inf, 0.5]
APPLY, CLIP = 1, 2

# The guard's norm. It adds in float64: n terms of one sign lose at most n * 2^-53 of the sum, and the
# norm 1/p of that: for the 2^22 elements of the largest case and p = 0.5, 1e-9. The coefficient inherits
# it. (The contract is 1e-6.)
NORM_TOLERANCE = 1e-9
# The guard's gradients, in units of the dtype's rounding (half of its eps): one for the product, and
# for types of 32 bits and fewer one of float32 for the coefficient and one for the product before it
# is rounded to 16 bits. float64 adds the norm's error.
EPS = {name: torch.finfo(dtype).eps / 2 for name, dtype in DTYPES.items()}


def gradient_tolerance(name):
    return NORM_TOLERANCE + 2 * EPS["float64"] if name == "float64" else EPS[name] + 2 * EPS["float32"]


# torch rounds to the gradients' dtype each tensor's norm, the total, the sum with 1e-6 and the quotient:
# four roundings for norm and coefficient, and one more for the product. It adds in float32 where they
# have fewer than 64 bits: over the 2^18 elements of the largest tensor a random walk of roundings comes
# to 2^9 * 2^-24 = 3e-5, twice that for p = 0.5. A norm of other elements, or another formula, would be
# far beyond this.
def torch_tolerance(name, roundings):
    return roundings * EPS[name] + (NORM_TOLERANCE if name == "float64" else 1e-4)


# ---- random cases --------------------------------------------------------------------------------


def random_shape(choose):
    shape = [choose.choice([1, 2, 3, 7, 16, 33, 64]) for _ in range(choose.randrange(4))]
    if choose.random() < 0.1:
        shape = [choose.randrange(1000, 1 << 14)]
    if choose.random() < 0.08:
        shape = shape[:2] + [0]
    return shape


def random_gradients(choose, generator, dtype_name):
    """At least one element that is not 0; magnitudes over many decades, where the dtype has them."""
    names = list(DTYPES) if dtype_name == "mixed" else [dtype_name]
    count = choose.choice([1, 2, 3, 5, 8, 16])
    low, high = (-3, 0) if dtype_name in ("float16", "mixed") else (-6, 2)
    level = choose.uniform(low, high)
    gradients = []
    for index in range(count):
        shape = random_shape(choose) if index else [choose.choice([1, 5, 100, 4000])]
        scale = 10.0 ** min(high, max(low, level + choose.uniform(-1, 1)))
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        gradients.append(values.to(DTYPES[choose.choice(names)]))
    gradients[0].view(-1)[0] = 10.0**level
    return gradients


def parameters_with(gradients):
    parameters = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        parameters.append(parameter)
    return parameters


# ---- the three that are compared -----------------------------------------------------------------


def reference_norm(gradients, norm_type):
    flat = torch.cat([gradient.double().reshape(-1) for gradient in gradients]).abs()
    if math.isinf(norm_type):
        return float(flat.max())
    return math.fsum(flat.pow(norm_type).tolist()) ** (1 / norm_type)


class Guard:
    def __init__(self, path):
        self.call = ctypes.CDLL(path).gwt_clip
        self.call.restype = ctypes.c_int32
        self.call.argtypes = [
            ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_int32),
            ctypes.c_size_t, ctypes.c_double, ctypes.c_double, ctypes.c_double,
            ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_double)]

    def clip(self, gradients, max_norm=0.0, norm_type=2.0, value_limit=0.0):
        """Returns decision, norm, coefficient and the clipped copies."""
        copies = [gradient.clone() for gradient in gradients]
        count = len(copies)
        norm, coefficient = ctypes.c_double(), ctypes.c_double()
        decision = self.call(
            (ctypes.c_void_p * count)(*[copy.data_ptr() for copy in copies]),
            (ctypes.c_uint64 * count)(*[copy.numel() for copy in copies]),
            (ctypes.c_int32 * count)(*[CODES[copy.dtype] for copy in copies]),
            count, max_norm, norm_type, value_limit, ctypes.byref(norm), ctypes.byref(coefficient))
        if decision == 0:
            sys.exit("the guard refused a case")
        return decision, norm.value, coefficient.value, copies


def torch_clip(gradients, max_norm, norm_type):
    """Returns norm, coefficient (as torch computes it, in the norm's dtype) and the clipped copies; None
    where torch refuses: the infinity norm of a list with an empty tensor."""
    parameters = parameters_with(gradients)
    try:
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type, foreach=False)
    except RuntimeError as error:
        if "on an empty tensor" not in str(error):
            raise
        return None
    coefficient = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    return float(norm), float(coefficient), [parameter.grad for parameter in parameters]


# ---- differences ---------------------------------------------------------------------------------


def relative(value, expected):
    if value == expected:
        return 0.0
    return abs(value - expected) / abs(expected) if expected else math.inf


def elements_relative(clipped, expected):
    """The largest of all elements, beyond the spacing of the dtype's subnormal numbers."""
    worst = 0.0
    for ours, exact in zip(clipped, expected):
        if not exact.numel():
            continue
        information = torch.finfo(ours.dtype)
        spacing = information.tiny * information.eps
        excess = ((ours.double() - exact.double()).abs() - spacing).clamp(min=0)
        worst = max(worst, float((excess / exact.double().abs().clamp(min=spacing)).max()))
    return worst


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


class Worst:
    """The largest difference of each kind, and what was beyond its tolerance."""

    def __init__(self):
        self.of = {}
        self.failures = []

    def see(self, kind, difference, tolerance, what):
        self.of[kind] = max(self.of.get(kind, 0.0), difference)
        if not difference <= tolerance:
            self.failures.append(f"{what}: {', '.join(kind)}: differs by {difference:.3g}, allowed {tolerance:.3g}")


def table(heading, rows):
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def finish(failures, what):
    for failure in failures[:10]:
        print("FAILED:", failure)
    if failures:
        sys.exit(f"{len(failures)} differences beyond their tolerance")
    print(what)


# ---- the two tests -------------------------------------------------------------------------------

KINDS = [(quantity, pair) for quantity in ("norm", "coefficient", "gradients")
         for pair in ("guard to float64", "torch to float64", "guard to torch")]


class Tally:
    """Of one dtype."""

    def __init__(self):
        self.worst = Worst()
        self.cases = self.clipped = self.refused = self.overflowed = 0

    def row(self, name):
        return [name, str(self.cases), str(self.clipped), str(self.refused), str(self.overflowed)] + [
            f"{self.worst.of.get(kind, 0.0):.1e}" for kind in KINDS]


def compare_norms(guard, tally, name, gradients, norm_type, max_norm, what):
    exact_norm = reference_norm(gradients, norm_type)
    exact_coefficient = min(1.0, max_norm / (exact_norm + 1e-6))
    exact = [gradient.double() * exact_coefficient for gradient in gradients]
    decision, norm, coefficient, clipped = guard.clip(gradients, max_norm, norm_type)
    worst = tally.worst
    tally.cases += 1
    tally.clipped += exact_coefficient < 1
    if decision != (CLIP if exact_coefficient < 1 else APPLY):
        worst.failures.append(f"{what}: decision {decision} at coefficient {exact_coefficient}")
    # The coarsest of a mixed list.
    coarse = "bfloat16" if name == "mixed" else name
    worst.see(KINDS[0], relative(norm, exact_norm), NORM_TOLERANCE, what)
    worst.see(KINDS[3], relative(coefficient, exact_coefficient), NORM_TOLERANCE, what)
    worst.see(KINDS[6], elements_relative(clipped, exact), gradient_tolerance(coarse), what)
    of_torch = torch_clip(gradients, max_norm, norm_type)
    if of_torch is None:
        tally.refused += 1
        return
    torch_norm, torch_coefficient, by_torch = of_torch
    # torch's norm has the gradients' dtype and may leave it, though the true norm is finite.
    if not math.isfinite(torch_norm):
        tally.overflowed += 1
        if any(gradient.any() for gradient in by_torch):
            worst.failures.append(f"{what}: torch's norm overflowed and its gradients are not zero, as the table says")
        return
    norm_room, gradient_room = torch_tolerance(coarse, 4), torch_tolerance(coarse, 5)
    worst.see(KINDS[1], relative(torch_norm, exact_norm), norm_room, what)
    worst.see(KINDS[2], relative(norm, torch_norm), norm_room * 1.05, what)
    worst.see(KINDS[4], relative(torch_coefficient, exact_coefficient), norm_room, what)
    worst.see(KINDS[5], relative(coefficient, torch_coefficient), norm_room * 1.05, what)
    worst.see(KINDS[7], elements_relative(by_torch, exact), gradient_room, what)
    both = gradient_room + gradient_tolerance(coarse)
    worst.see(KINDS[8], elements_relative(clipped, by_torch), both * 1.05, what)


def norms(guard, cases, seed):
    tallies = {name: Tally() for name in [*DTYPES, "mixed"]}
    for case in range(cases):
        choose = random.Random(seed * 1_000_003 + case)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + case)
        name = list(tallies)[case % len(tallies)]
        norm_type = NORM_TYPES[case // len(tallies) % len(NORM_TYPES)]
        gradients = random_gradients(choose, generator, name)
        ratio = 10.0 ** choose.uniform(-3, -0.1) if choose.random() < 0.6 else choose.uniform(1.2, 50)
        max_norm = ratio * reference_norm(gradients, norm_type)
        what = f"case {case} ({name}, p = {norm_type}, {len(gradients)} tensors)"
        compare_norms(guard, tallies[name], name, gradients, norm_type, max_norm, what)
    rows = [tally.row(name) for name, tally in tallies.items()]
    print(f"torch {torch.__version__}, seed {seed}: largest relative differences. In some cases torch refuses (the infinity norm\n"
          "of a list with an empty tensor), in some its norm leaves the dtype (it is then infinite, and the gradients become\n"
          "zero): these count for the guard alone.\n")
    table(["dtype", "cases", "clipped", "torch refuses", "torch overflows"] + [f"{q}, {pair}" for q, pair in KINDS], rows)
    failures = [failure for tally in tallies.values() for failure in tally.worst.failures]
    if not all(0 < tally.clipped < tally.cases for tally in tallies.values()):
        failures.append("some dtype was never clipped, or always: too few cases")
    finish(failures, f"{cases} cases agree")


def values(guard, cases, seed):
    """Clamped elements have the very bits of torch's."""
    failures = []
    rows = []
    for name in [*DTYPES, "mixed"]:
        clamped = elements = differing = 0
        for case in range(cases // 5):
            choose = random.Random(seed * 7919 + case)
            generator = torch.Generator().manual_seed(seed * 7919 + case)
            gradients = random_gradients(choose, generator, name)
            largest = max(float(g.double().abs().max()) for g in gradients if g.numel())
            limit = largest * choose.uniform(0.01, 1.3)
            _, _, _, by_guard = guard.clip(gradients, value_limit=limit)
            parameters = parameters_with(gradients)
            torch.nn.utils.clip_grad_value_(parameters, limit, foreach=False)
            for before, ours, parameter in zip(gradients, by_guard, parameters):
                elements += before.numel()
                clamped += int((before != parameter.grad).sum())
                differing += not torch.equal(bits(ours), bits(parameter.grad))
        rows.append([name, str(cases // 5), str(elements), str(clamped), str(differing)])
        if differing:
            failures.append(f"{name}: {differing} tensors differ from torch's")
        if not 0 < clamped < elements:
            failures.append(f"{name}: {clamped} of {elements} elements clamped: too few cases")
    print(f"torch {torch.__version__}, seed {seed}: clip_grad_value_, bit for bit\n")
    table(["dtype", "cases", "elements", "clamped", "tensors that differ"], rows)
    finish(failures, "every element has torch's bits")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("test", choices=["norms", "values"])
    parser.add_argument("shared_object", help="libgradwarden_torch_agreement.so of the build")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    guard = Guard(arguments.shared_object)
    {"norms": norms, "values": values}[arguments.test](guard, arguments.cases, arguments.seed)


if __name__ == "__main__":
    main()
