#!/usr/bin/env python3
"""What guard.step() costs the host beyond clipping and the optimizer, against what other monitors cost per step.

A model of GPT-2's 148 tensors, narrow so that its memory is no matter, whose gradients stay and whose optimizer does
nothing: what is left of a step is its host cost. The guard reports to a real gradwardend: loss, learning rate, norm,
decision, threshold, rolling mean and the statistics of every tensor and group, with two batch identifiers. Its cost
beyond clipping is its time less that of gradwarden.clip_grad_norm_(), and, for what a user sees, less that of
torch.nn.utils.clip_grad_norm_().

The others are handed the values, computed already, as Python floats: seven scalars and the norms of the groups. Where
trainscope computes its own from the same model, that is its cost. Each runs in blocks of steps, by turns, in this one
process; medians over all steps. What is not installed is left out and said.

usage: PYTHONPATH=build/release/client/python python_host_cost.py --daemon build/release/daemon/app/gradwardend
                                                                  [--blocks N] [--steps N] [--width N]
"""

import argparse
import contextlib
import gc
import importlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

import gradwarden

NEVER = 1e30
LAYERS = 12


class Nothing(torch.optim.Optimizer):
    """An optimizer that leaves everything as it is: its time would be the same in every row."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 1e-3})

    def step(self, closure=None):
        return None


def model_of(width):
    """GPT-2's modules and names (12 layers; 148 tensors), `width` wide; every parameter has a gradient."""
    attention = {"c_attn": torch.nn.Linear(width, 3 * width), "c_proj": torch.nn.Linear(width, width)}
    norm = torch.nn.LayerNorm

    def layer():
        return torch.nn.ModuleDict(
            {
                "ln_1": norm(width),
                "attn": torch.nn.ModuleDict({name: torch.nn.Linear(m.in_features, m.out_features) for name, m in attention.items()}),
                "ln_2": norm(width),
                "mlp": torch.nn.ModuleDict({"c_fc": torch.nn.Linear(width, 4 * width), "c_proj": torch.nn.Linear(4 * width, width)}),
            }
        )

    model = torch.nn.ModuleDict(
        {
            "wte": torch.nn.Embedding(257, width),
            "wpe": torch.nn.Embedding(64, width),
            "h": torch.nn.ModuleList(layer() for _ in range(LAYERS)),
            "ln_f": norm(width),
        }
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3
    return model


def values_of(step):
    """What a trainer would hand to a monitor: seven scalars and the norm of each group."""
    wobble = 1 + 0.01 * (step % 7)
    values = {
        "loss": 3.0 * wobble,
        "learning_rate": 1e-3,
        "grad_norm": 0.7 * wobble,
        "clip_coefficient": 1.0,
        "threshold": 2.1,
        "rolling_mean": 0.7,
        "decision": 0.0,
    }
    for group in ("wte", "wpe", "ln_f", *(f"h.{layer}" for layer in range(LAYERS))):
        values[f"grad_norm_{group}"] = 0.1 * wobble
    return values


class Bench:
    """Rows by name; each has a function of the step's number that is timed."""

    def __init__(self, stack):
        self.stack = stack
        self.rows = {}
        self.missing = []

    def peer(self, name, module, make):
        try:
            self.rows[name] = make(importlib.import_module(module), self.stack)
        except ImportError as error:
            self.missing.append(f"{name} ({error})")


def prometheus(module, stack):
    registry = module.CollectorRegistry()
    gauges = {}

    def log(step):
        for name, value in values_of(step).items():
            gauge = gauges.get(name)
            if gauge is None:
                gauge = gauges[name] = module.Gauge(name.replace(".", "_"), name, registry=registry)
            gauge.set(value)

    return log


def tensorboard(module, stack):
    writer = module.SummaryWriter(stack.enter_context(tempfile.TemporaryDirectory()))
    stack.callback(writer.close)

    def log(step):
        for name, value in values_of(step).items():
            writer.add_scalar(name, value, step)

    return log


def wandb(module, stack):
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    settings = module.Settings(console="off", silent=True)
    run = module.init(mode="offline", dir=folder, project="bench", settings=settings)
    stack.callback(run.finish)
    return lambda step: run.log(values_of(step), step=step)


def trainpulse(module, stack):
    monitor = module.Monitor()

    def log(step):
        for name, value in values_of(step).items():
            monitor.log(name, step, value)

    return log


def trainscope(module, stack, model, optimizer):
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    scope = module.TrainScope(model, optimizer, module.TrainScopeConfig(run_dir=folder, run_name="bench", integrations={"wandb": False})).attach()
    close = getattr(scope, "close", None) or getattr(scope, "detach", None)
    if close:
        stack.callback(close)
    return lambda step: scope.step(values_of(step)["loss"], batch_index=step)


def daemon(program, stack):
    """host:port of a gradwardend that ends with this program."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    ports = os.path.join(folder, "ports.json")
    command = [program, "--data-dir", os.path.join(folder, "data"), "--grpc-listen", "127.0.0.1:0"]
    command += ["--http-listen", "127.0.0.1:0", "--ports-file", ports, "--log-level", "error"]
    process = subprocess.Popen(command)

    def stop():
        process.terminate()
        process.wait(30)

    stack.callback(stop)
    deadline = time.monotonic() + 30
    while not (os.path.exists(ports) and os.path.getsize(ports)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("gradwardend did not start")
        time.sleep(0.02)
    with open(ports, encoding="utf-8") as file:
        return f"127.0.0.1:{json.load(file)['grpc']}"


def timed(function, steps):
    now = time.perf_counter_ns
    times = []
    for step in steps:
        start = now()
        function(step)
        times.append(now() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--daemon", required=True, help="the program gradwardend, or host:port of a running one")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="per block")
    parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ["WANDB_SILENT"] = "true"
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        run(arguments, stack)


def run(arguments, stack):
    bench = Bench(stack)
    model = model_of(arguments.width)
    optimizer = Nothing(model.parameters())
    parameters = list(model.parameters())
    address = arguments.daemon if os.path.sep not in arguments.daemon else daemon(arguments.daemon, stack)
    options = {"max_norm": NEVER, "skip": "3x-rolling-mean"}
    reporting = gradwarden.Guard(model, optimizer, daemon=address, run="bench", **options)
    alone = gradwarden.Guard(model, optimizer, **options)
    stack.callback(reporting.close)

    def with_torch(step):
        torch.nn.utils.clip_grad_norm_(parameters, NEVER)
        optimizer.step()

    def with_ours(step):
        gradwarden.clip_grad_norm_(parameters, NEVER)
        optimizer.step()

    ids = [f"shard-0/{i}" for i in range(1000)]
    clipping, guarded = "gradwarden.clip_grad_norm_", "guard.step, reporting"
    bench.rows["torch clip_grad_norm_"] = with_torch
    bench.rows[clipping] = with_ours
    bench.rows["guard.step, no daemon"] = lambda step: alone.step(step, 3.0)
    bench.rows[guarded] = lambda step: reporting.step(step, 3.0, batch_ids=(ids[step % 1000], ids[(step + 1) % 1000]))
    bench.rows["(making the values)"] = values_of
    bench.peer("prometheus_client Gauge.set", "prometheus_client", prometheus)
    bench.peer("TensorBoard add_scalar", "torch.utils.tensorboard", tensorboard)
    bench.peer("W&B offline log", "wandb", wandb)
    bench.peer("trainpulse log", "trainpulse", trainpulse)
    bench.peer(
        "trainscope step", "trainscope", lambda module, stack: trainscope(module, stack, model, optimizer)
    )
    times = {name: [] for name in bench.rows}
    for block in range(arguments.blocks + 1):
        steps = range(block * arguments.steps, (block + 1) * arguments.steps)
        for name, function in bench.rows.items():
            gc.collect()
            measured = timed(function, steps)
            if block > 0:  # the first block makes files, gauges and threads
                times[name] += measured
        print(f"block {block} of {arguments.blocks}", file=sys.stderr, flush=True)
    print_table({name: statistics.median(all_times) / 1e3 for name, all_times in times.items()}, clipping, guarded, len(parameters))
    for name in bench.missing:
        print(f"left out: {name}")


def print_table(cost, clipping, guarded, tensors):
    print(f"{tensors} tensors, {len(values_of(0))} values; microseconds per step, medians")
    torch_clip, making = cost["torch clip_grad_norm_"], cost["(making the values)"]
    print(f"  {'':30} {'':>9}  {'with our clipping':>17}  {'with torch clipping':>19}")
    for name in ("torch clip_grad_norm_", clipping, "guard.step, no daemon", guarded):
        print(f"  {name:30} {cost[name]:9.1f}")
    beyond = (cost[guarded] - cost[clipping], cost[guarded] - torch_clip)
    print(f"  {'guard.step beyond clipping':30} {'':9}  {beyond[0]:17.1f}  {beyond[1]:19.1f}")
    print("in place of guard.step: clipping, then the monitor; and how many times as long as guard.step that takes")
    for name in list(cost)[5:]:
        own = cost[name] - (making if name != "trainscope step" else 0)
        totals = [(clip + own, (clip + own) / cost[guarded]) for clip in (cost[clipping], torch_clip)]
        print(f"  {name:30} {own:9.1f}  " + "  ".join(f"{total:9.1f} ({ratio:5.1f} x)" for total, ratio in totals))


if __name__ == "__main__":
    main()
