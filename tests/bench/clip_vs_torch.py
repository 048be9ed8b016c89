#!/usr/bin/env python3
"""Gradient clipping on the CPU: the gradwarden kernels against torch.nn.utils.clip_grad_norm_.

Gradients have the shapes of GPT-2 124M (148 tensors, the embedding tied). max_norm is so large that
nothing is clipped, the case of nearly every step: torch still reads the gradients and multiplies
them by 1, the kernels read them once. Both run by turns in this process, on the same memory, with
the same number of threads; the medians are compared, and so are the norms.

A second case has many small tensors, where the overhead of each call shows.

usage: clip_vs_torch.py path/to/libgradwarden_kernel_bench.so [--repetitions N]
"""

import argparse
import ctypes
import statistics
import sys
import time

import torch

DTYPES = {"fp32": (torch.float32, 1), "bf16": (torch.bfloat16, 2)}
MAX_NORM = 1e30


def gpt2_shapes():
    """The 148 parameters of GPT-2 124M in the order of its module tree."""
    width = 768
    shapes = [(50257, width), (1024, width)]
    for _ in range(12):
        shapes += [
            (width,), (width,),  # ln_1
            (width, 3 * width), (3 * width,), (width, width), (width,),  # attention
            (width,), (width,),  # ln_2
            (width, 4 * width), (4 * width,), (4 * width, width), (width,),  # mlp
        ]
    return shapes + [(width,), (width,)]


def load(path):
    library = ctypes.CDLL(path)
    library.gwb_new.restype = ctypes.c_void_p
    library.gwb_new.argtypes = [
        ctypes.POINTER(ctypes.c_uint64), ctypes.c_uint64, ctypes.c_int, ctypes.c_uint, ctypes.c_double]
    library.gwb_step.restype = ctypes.c_double
    library.gwb_step.argtypes = [
        ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_double)]
    library.gwb_free.argtypes = [ctypes.c_void_p]
    return library


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(library, what, shapes, dtype_name, threads, repetitions):
    dtype, dtype_code = DTYPES[dtype_name]
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    parameters = []
    for shape in shapes:
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = (torch.randn(shape, generator=generator) * 1e-3).to(dtype)
        parameters.append(parameter)
    counts = (ctypes.c_uint64 * len(shapes))(*[p.numel() for p in parameters])
    pointers = (ctypes.c_void_p * len(shapes))(*[p.grad.data_ptr() for p in parameters])
    coefficient = ctypes.c_double()
    step = library.gwb_new(counts, len(shapes), dtype_code, threads, MAX_NORM)

    def by_torch():
        return torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM, foreach=True)

    def by_kernels():
        return library.gwb_step(step, pointers, ctypes.byref(coefficient))

    torch_times, kernel_times = [], []
    for repetition in range(repetitions + 3):
        torch_s, torch_norm = timed(by_torch)
        kernel_s, kernel_norm = timed(by_kernels)
        if repetition >= 3:  # the first rounds fault pages in and start threads
            torch_times.append(torch_s)
            kernel_times.append(kernel_s)
    library.gwb_free(step)

    exact = sum(float(p.grad.double().square().sum()) for p in parameters) ** 0.5
    error = abs(kernel_norm / exact - 1)
    if error > 1e-6 or coefficient.value != 1.0:
        sys.exit(f"wrong norm: {kernel_norm} instead of {exact}, or clipped: {coefficient.value}")
    torch_s, kernel_s = statistics.median(torch_times), statistics.median(kernel_times)
    print(f"{what:11} {dtype_name} {threads} thread{'s' if threads > 1 else ' '}"
          f"  torch {torch_s * 1e3:8.3f} ms  kernels {kernel_s * 1e3:8.3f} ms"
          f"  {torch_s / kernel_s:6.2f} x faster"
          f"  norm off by {error:.1e} (torch {abs(float(torch_norm) / exact - 1):.1e})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shared_object", metavar="library", help="libgradwarden_kernel_bench.so of the build")
    parser.add_argument("--repetitions", type=int, default=31)
    arguments = parser.parse_args()
    library = load(arguments.shared_object)
    cases = {"gpt2-124m": gpt2_shapes(), "1000 x 1000": [(1000,)] * 1000}
    for what, shapes in cases.items():
        print(f"{what}: {len(shapes)} tensors, "
              f"{sum(torch.Size(shape).numel() for shape in shapes):,} elements, torch {torch.__version__}")
        for dtype_name in DTYPES:
            for threads in (1, 2):
                compare(library, what, shapes, dtype_name, threads, arguments.repetitions)


if __name__ == "__main__":
    main()
