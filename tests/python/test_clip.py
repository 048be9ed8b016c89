"""gradwarden.clip_grad_norm_ against torch.nn.utils.clip_grad_norm_: the same in every respect but time."""

import math
import multiprocessing
import random
import unittest
import warnings

import torch

import gradwarden

SEED = 20240607
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Half a unit in the last place of norm, coefficient and product each, and what torch's own norm of short dtypes is off by.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 6e-3}


def parameter(gradient):
    made = torch.nn.Parameter(torch.zeros(gradient.shape, dtype=gradient.dtype))
    made.grad = gradient
    return made


def gradient(rng, dtype):
    shape = [rng.choice((1, 2, 3, 17, 64)) for _ in range(rng.randint(0, 3))]
    made = (torch.randn(shape, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))) * 0.3).to(dtype)
    if len(shape) > 1 and rng.random() < 0.3:
        return made.transpose(0, 1)  # dense, not contiguous
    if shape and shape[0] > 2 and rng.random() < 0.2:
        return made[::2]  # strided: torch's to clip
    if rng.random() < 0.1:
        return torch.zeros(shape, dtype=dtype)
    return made


def twin(parameters):
    return [None if p.grad is None else p.grad.clone() for p in parameters]


class ClipTest(unittest.TestCase):
    def check(self, make, max_norm, norm_type=2.0, tolerance=1e-5, **keywords):
        """Clips what make() gives by both; returns our norm."""
        mine, theirs = make(), make()
        result = gradwarden.clip_grad_norm_(mine, max_norm, norm_type, **keywords)
        expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type, **keywords)
        self.assertEqual((type(result), result.dtype, result.device, result.shape), (
            type(expected), expected.dtype, expected.device, expected.shape))
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=1e-7, equal_nan=True)
        for a, b in zip(twin(mine), twin(theirs)):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-7, equal_nan=True)
        return result

    def test_random_lists_come_out_as_torchs(self):
        rng = random.Random(SEED)
        for case in range(300):
            dtypes = rng.choice([[dtype] for dtype in DTYPES] + [rng.sample(DTYPES, 2)])
            gradients = [gradient(rng, rng.choice(dtypes)) for _ in range(rng.randint(1, 12))]
            norm_type = rng.choice((2.0, 2.0, 2, 1.0, 3.0, 0.5, math.inf, "inf", 0, -1.0))
            if norm_type == 0.5 and torch.float16 in dtypes:
                norm_type = 1.5  # the other is beyond float16, where torch wipes the gradients
            # Well away from the norm: at it, rounding decides on which side a dtype lands.
            max_norm = rng.choice((1e-3, 0.05, 1e6, 1e9))
            with self.subTest(seed=SEED, case=case, dtypes=dtypes, norm_type=norm_type, max_norm=max_norm):
                made = [g.clone(memory_format=torch.preserve_format) for g in gradients]
                tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
                if norm_type in (0.5, 1.0):  # sums of many roundings
                    tolerance *= 4
                self.check(
                    lambda: [parameter(g.clone(memory_format=torch.preserve_format)) for g in made], max_norm, norm_type,
                    tolerance)

    def test_the_norm_of_short_dtypes_is_exact_where_torchs_is_not(self):
        for dtype in (torch.bfloat16, torch.float16):
            p = parameter(torch.full((10_000,), 0.01, dtype=dtype))
            exact = p.grad.double().norm().item()
            result = gradwarden.clip_grad_norm_([p, parameter(torch.zeros(3))], 1e9)
            self.assertEqual(result.dtype, torch.float32)
            self.assertAlmostEqual(result.item() / exact, 1, delta=1e-6)

    def test_takes_what_torch_takes_as_parameters(self):
        def make():
            return [parameter(torch.tensor([3.0, 4.0]))]

        for given in (lambda: make()[0], lambda: tuple(make()), lambda: iter(make()), lambda: (p for p in make())):
            self.assertEqual(gradwarden.clip_grad_norm_(given(), 1.0).item(), 5.0)
        self.assertEqual(gradwarden.clip_grad_norm_(torch.nn.Linear(2, 2).parameters(), 1.0).item(), 0.0)
        self.assertEqual(gradwarden.clip_grad_norm_([], 1.0).item(), 0.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gradwarden.clip_grad_norm_((p for p in ()), 1.0)
        self.assertIn("empty generator", str(caught[0].message))

    def test_parameters_without_a_gradient_and_empty_ones_count_for_nothing(self):
        def make():
            return [torch.nn.Parameter(torch.zeros(2)), parameter(torch.tensor([30.0, 40.0])), parameter(torch.zeros(0, 3))]

        for norm_type in (1.0, 2.0):
            self.check(make, 1.0, norm_type)
        with self.assertRaises(RuntimeError):
            gradwarden.clip_grad_norm_(make(), 1.0, math.inf)  # as torch: of an empty tensor there is none

    def test_gradients_that_are_not_finite_come_out_as_torchs(self):
        for bad in (math.inf, -math.inf, math.nan):
            for norm_type in (1.0, 2.0, math.inf):
                def make():
                    return [parameter(torch.tensor([1.0, bad, 3.0])), parameter(torch.tensor([1.0, 2.0]))]

                self.check(make, 1.0, norm_type)
                before = make()
                with self.assertRaisesRegex(RuntimeError, "non-finite"):
                    gradwarden.clip_grad_norm_(before, 1.0, norm_type, error_if_nonfinite=True)
                torch.testing.assert_close(twin(before), twin(make()), rtol=0, atol=0, equal_nan=True)

    def test_a_norm_beyond_the_dtype_is_an_error_if_that_is_asked_for(self):
        p = parameter(torch.full((100,), 60000.0, dtype=torch.float16))
        with self.assertRaisesRegex(RuntimeError, "non-finite"):
            gradwarden.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)

    def test_unusual_limits_are_as_torchs(self):
        for max_norm in (0, 0.0, math.inf, -1.0, math.nan, torch.tensor(0.5)):
            with self.subTest(max_norm=max_norm):
                self.check(lambda: [parameter(torch.tensor([3.0, 4.0]))], max_norm)

    def test_nothing_is_written_where_nothing_is_clipped(self):
        p = parameter(torch.tensor([3.0, 4.0]))
        version = p.grad._version
        gradwarden.clip_grad_norm_(p, 10.0)
        self.assertEqual(p.grad._version, version)
        gradwarden.clip_grad_norm_(p, 1.0)
        self.assertEqual(p.grad._version, version + 1)

    def test_a_gradient_that_is_listed_twice_is_clipped_twice(self):
        def make():
            tied = torch.randn(70_000, generator=torch.Generator().manual_seed(1))
            first, second, view = parameter(tied), parameter(tied), parameter(tied[1000:60_000])
            return [first, second, view]

        for threads in (1, 2):
            torch.set_num_threads(threads)
            self.check(make, 1.0)

    def test_what_the_kernels_do_not_read_is_left_to_torch(self):
        def complex_gradients():
            return [parameter(torch.tensor([3.0 + 4.0j, 1.0]))]

        def sparse_gradients():
            table = torch.nn.Embedding(4, 2, sparse=True)
            torch.nn.init.ones_(table.weight)
            table(torch.tensor([1, 2])).sum().backward()
            return list(table.parameters())

        self.check(complex_gradients, 1.0)
        for clip in (gradwarden.clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
            with self.assertRaises(NotImplementedError):
                clip(sparse_gradients(), 1.0)
        meta = torch.nn.Linear(2, 2, device="meta")
        for p in meta.parameters():
            p.grad = torch.zeros_like(p)
        self.assertEqual(gradwarden.clip_grad_norm_(meta.parameters(), 1.0).device.type, "meta")

    def test_gradients_of_gradients_stay_in_their_graph(self):
        def make():
            p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
            p.square().sum().backward(create_graph=True)
            return [p]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the cycle that create_graph makes
            self.check(make, 1.0)
            p = make()[0]
        gradwarden.clip_grad_norm_(p, 1.0)
        self.assertIsNotNone(p.grad.grad_fn)
        p.grad = None  # ends the cycle

    def test_the_default_device_does_not_matter(self):
        p = parameter(torch.tensor([3.0, 4.0]))
        with torch.device("meta"):
            self.assertEqual(gradwarden.clip_grad_norm_(p, 1.0).item(), 5.0)

    def test_a_compiled_function_that_clips_is_torchs(self):
        p = parameter(torch.tensor([3.0, 4.0]))

        @torch.compile(backend="eager")
        def clip():
            return gradwarden.clip_grad_norm_([p], 1.0)

        self.assertEqual(clip().item(), 5.0)
        self.assertAlmostEqual(p.grad.norm().item(), 1.0, delta=1e-5)

    def test_a_forked_child_clips_with_threads_of_its_own(self):
        torch.set_num_threads(2)
        p = parameter(torch.ones(1 << 20))
        self.assertEqual(gradwarden.clip_grad_norm_(p, 1e9).item(), 1024.0)
        child = multiprocessing.get_context("fork").Process(target=clip_in_child, args=(p.grad,))
        child.start()
        child.join(60)
        ended = child.exitcode
        if ended is None:
            child.kill()
        self.assertEqual(ended, 0)


def clip_in_child(gradient):
    # Only our threads: torch's do not survive a fork.
    raise SystemExit(0 if gradwarden._core.gradient_list([gradient]).read(2.0, 2).norm == 1024.0 else 1)


if __name__ == "__main__":
    unittest.main()
