#!/usr/bin/env python3
"""A guarded step on a GPU against PyTorch's clip_grad_norm_ and AMP's unscale + clip.

Gradients have the shapes of GPT-2 124M (148 tensors). Both run by turns on the same memory and
stream, timed by CUDA events; the medians are compared. Healthy: max_norm is so large that nothing
is clipped. Clipping: it is small. AMP: gradients carry a loss scale, which torch divides out in a
pass of its own and waits for on the host before it clips, as GradScaler.unscale_ does. Without a GPU
it says so and exits with 77.

usage: gpu_vs_torch.py path/to/libgradwarden_gpu_bench.so [--repetitions N]
"""

import argparse
import ctypes
import statistics
import sys

import torch

from clip_vs_torch import gpt2_shapes

DTYPES = {"fp32": (torch.float32, 1), "bf16": (torch.bfloat16, 2)}


def load(path):
    library = ctypes.CDLL(path)
    library.gwg_new.restype = ctypes.c_void_p
    library.gwg_new.argtypes = [
        ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint64), ctypes.c_uint64,
        ctypes.c_int, ctypes.c_double, ctypes.c_void_p]
    library.gwg_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.gwg_norm.restype = ctypes.c_double
    library.gwg_norm.argtypes = [ctypes.c_void_p]
    library.gwg_free.argtypes = [ctypes.c_void_p]
    return library


def timed(function):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def make_parameters(dtype, scale):
    generator = torch.Generator(device="cuda").manual_seed(1)
    parameters = []
    for shape in gpt2_shapes():
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype, device="cuda"))
        parameter.grad = (torch.randn(shape, generator=generator, device="cuda") * scale).to(dtype)
        parameters.append(parameter)
    return parameters


def by_torch(parameters, max_norm, scale, found_inf, inverse_scale):
    if scale is not None:  # what GradScaler.unscale_ and step do with one optimizer
        torch._amp_foreach_non_finite_check_and_unscale_(
            [p.grad for p in parameters], found_inf, inverse_scale)
        if found_inf.item():
            return
    torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)


def compare(library, what, dtype_name, max_norm, scaled, repetitions):
    dtype, code = DTYPES[dtype_name]
    scale = torch.tensor(1024.0, device="cuda") if scaled else None
    parameters = make_parameters(dtype, 1e-3 * (1024 if scaled else 1))
    saved = [p.grad.clone() for p in parameters]
    exact = sum(float(p.grad.double().square().sum()) for p in parameters) ** 0.5
    exact /= 1024 if scaled else 1
    pointers = (ctypes.c_void_p * len(parameters))(*[p.grad.data_ptr() for p in parameters])
    counts = (ctypes.c_uint64 * len(parameters))(*[p.numel() for p in parameters])
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    guard = library.gwg_new(pointers, counts, len(parameters), code, max_norm, stream)
    if guard is None:
        sys.exit("the guard could not be bound")
    scale_at = ctypes.c_void_p(scale.data_ptr() if scaled else None)
    found_inf, inverse_scale = torch.zeros(1, device="cuda"), torch.full((1,), 1 / 1024, device="cuda")

    def restore():
        torch._foreach_copy_([p.grad for p in parameters], saved)

    torch_times, guard_times = [], []
    for repetition in range(repetitions + 5):
        restore()
        torch_ms = timed(lambda: by_torch(parameters, max_norm, scale, found_inf, inverse_scale))
        restore()
        guard_ms = timed(lambda: library.gwg_step(guard, scale_at, stream))
        if repetition >= 5:
            torch_times.append(torch_ms)
            guard_times.append(guard_ms)
    norm = library.gwg_norm(guard)
    library.gwg_free(guard)
    if abs(norm / exact - 1) > 1e-6:
        sys.exit(f"wrong norm: {norm} instead of {exact}")
    torch_ms, guard_ms = statistics.median(torch_times), statistics.median(guard_times)
    print(f"GPT-2 124M {dtype_name} {what:14} torch {torch_ms:7.3f} ms  guard {guard_ms:7.3f} ms"
          f"  {torch_ms / guard_ms:5.2f} x faster", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shared_object", metavar="library", help="libgradwarden_gpu_bench.so of the build")
    parser.add_argument("--repetitions", type=int, default=51)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        sys.exit(77)
    library = load(arguments.shared_object)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for dtype_name in DTYPES:
        compare(library, "healthy", dtype_name, 1e30, False, arguments.repetitions)
        compare(library, "clipping", dtype_name, 1e-3, False, arguments.repetitions)
        compare(library, "AMP, healthy", dtype_name, 1e30, True, arguments.repetitions)


if __name__ == "__main__":
    main()
