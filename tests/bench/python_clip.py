#!/usr/bin/env python3
"""gradwarden.clip_grad_norm_ against torch.nn.utils.clip_grad_norm_ (foreach) on the CPU.

Three sets of gradients: the shapes of GPT-2 124M (148 tensors, the embedding tied), 1,000 small tensors, and one flat
buffer of 500 MB, in fp32 and bf16. In a healthy step max_norm is far above the norm, the case of nearly every step; in a
clipping one far below it, and the gradients are put back before each by multiplying them, untimed. Both run by turns in
this process on the same memory with the same number of threads; the medians are compared, and so are norms and gradients.
Beside them the memory floor: a plain read of the same memory by as many threads (a sum over its 64-bit words, by torch).

usage: PYTHONPATH=build/release/client/python python_clip.py [--repetitions N] [--threads 1 2]
"""

import argparse
import statistics
import time

import torch
from clip_vs_torch import gpt2_shapes

import gradwarden

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLAT_BYTES = 500_000_000
NEVER = 1e30


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def gradients(shapes, dtype):
    generator = torch.Generator().manual_seed(1)
    parameters = []
    for shape in shapes:
        parameter = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = (torch.randn(shape, generator=generator) * 1e-3).to(dtype)
        parameters.append(parameter)
    return parameters


def words_of(parameter):
    """The memory of a gradient as 64-bit words; summing them reads it once and computes next to nothing."""
    flat = parameter.grad.view(-1)
    per_word = 8 // flat.element_size()
    return flat[: flat.numel() // per_word * per_word].view(torch.int64)


class Case:
    def __init__(self, shapes, dtype):
        self.parameters = gradients(shapes, dtype)
        self.kept = [parameter.grad.clone() for parameter in self.parameters]
        self.exact = sum(float(p.grad.double().square().sum()) for p in self.parameters) ** 0.5
        self.words = [words_of(parameter) for parameter in self.parameters]

    def put_back(self):
        for parameter, kept in zip(self.parameters, self.kept):
            parameter.grad.copy_(kept)

    def clip(self, function, max_norm):
        seconds, norm = timed(lambda: function(self.parameters, max_norm))
        return seconds, float(norm)

    def read(self):
        for words in self.words:
            words.sum()


def compare(case, clips, repetitions):
    """Milliseconds of torch, of ours and of the floor; and by what the norms are off."""
    max_norm = case.exact / 4 if clips else NEVER
    functions = (torch.nn.utils.clip_grad_norm_, gradwarden.clip_grad_norm_)
    times = ([], [])
    floors = []
    norms = [0.0, 0.0]
    for repetition in range(repetitions + 2):
        for which, function in enumerate(functions):
            if clips:
                case.put_back()
            seconds, norms[which] = case.clip(function, max_norm)
            if repetition >= 2:  # the first rounds fault pages in and start threads
                times[which].append(seconds)
            if clips and repetition == 0 and which == 1:
                check_clipped(case, max_norm)
        floors.append(timed(case.read)[0])
    if clips:
        case.put_back()
    milliseconds = [statistics.median(values) * 1e3 for values in (*times, floors)]
    return milliseconds, [abs(norm / case.exact - 1) for norm in norms]


def check_clipped(case, max_norm):
    now = sum(float(p.grad.double().square().sum()) for p in case.parameters) ** 0.5
    tolerance = 1e-5 if case.parameters[0].dtype == torch.float32 else 1e-3
    if abs(now / max_norm - 1) > tolerance:
        raise SystemExit(f"clipped to {now} instead of {max_norm}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=21)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=["gpt2-124m", "1000 x 1000", "flat 500 MB"])
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, gradwarden {gradwarden.__version__}, medians of {arguments.repetitions}")
    for dtype_name, dtype in DTYPES.items():
        shapes = {
            "gpt2-124m": gpt2_shapes(),
            "1000 x 1000": [(1000,)] * 1000,
            "flat 500 MB": [(FLAT_BYTES // dtype.itemsize,)],
        }
        for name in arguments.cases:
            case = Case(shapes[name], dtype)
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                for clips in (False, True):
                    (torch_ms, our_ms, floor_ms), off = compare(case, clips, arguments.repetitions)
                    print(
                        f"{name:11} {dtype_name} {threads} thread{'s' if threads > 1 else ' '} "
                        f"{'clipping' if clips else 'healthy '}  torch {torch_ms:8.3f} ms  gradwarden {our_ms:8.3f} ms  "
                        f"{torch_ms / our_ms:5.2f} x faster  plain read {floor_ms:8.3f} ms  "
                        f"norms off by {off[0]:.0e} (torch), {off[1]:.0e}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
